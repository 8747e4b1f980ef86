//! Makes coloured lines fit into a width.

/// Cuts a line after so many characters. Colours take no room, and those that are cut off still
/// end where they should.
pub(crate) fn cut(line: &str, width: usize) -> String {
    let mut room = width;
    let mut escape = false;
    line.chars()
        .filter(|&character| {
            if escape {
                escape = !character.is_ascii_alphabetic();
                return true;
            }
            escape = character == '\x1b';
            if escape {
                return true;
            }
            let fits = room > 0;
            room = room.saturating_sub(1);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_fits_stays_as_it_is() {
        assert_eq!(cut("web1  \x1b[32mUP\x1b[0m", 8), "web1  \x1b[32mUP\x1b[0m");
    }

    #[test]
    fn colours_take_no_room_and_end() {
        assert_eq!(cut("\x1b[31mDOWN 3s\x1b[0m L4CON", 4), "\x1b[31mDOWN\x1b[0m");
        assert_eq!(cut("└ ü\x1b[1mx", 2), "└ \x1b[1m");
    }
}
