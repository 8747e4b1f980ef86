//! A set of places of a flow table.

/// Places that something is true of, a bit each.
#[derive(Debug)]
pub(super) struct Places(Vec<u64>);

impl Places {
    /// An empty set, with room for `count` places.
    pub(super) fn new(count: u32) -> Self {
        Self(vec![0; count.div_ceil(u64::BITS) as usize])
    }

    /// Adds a place; there is none beyond the table.
    pub(super) fn insert(&mut self, place: u32) {
        if let Some(word) = self.0.get_mut((place / u64::BITS) as usize) {
            *word |= 1 << (place % u64::BITS);
        }
    }

    pub(super) fn contains(&self, place: u32) -> bool {
        let word = self.0.get((place / u64::BITS) as usize);
        word.is_some_and(|word| word >> (place % u64::BITS) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_the_set_once_it_was_put_there() {
        let mut places = Places::new(130);
        for place in [0, 63, 64, 129, 5000] {
            assert!(!places.contains(place));
            places.insert(place);
        }
        let all: Vec<u32> = (0..6000).filter(|place| places.contains(*place)).collect();
        assert_eq!(all, [0, 63, 64, 129], "there is no place 5000");
    }
}
