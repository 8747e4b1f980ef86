//! The methods by which a server is convinced that somebody knows a password, without being told it.

use curve25519_dalek::{EdwardsPoint, Scalar, scalar::clamp_integer};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `mysql_native_password`: MySQL's since 4.1, and `MariaDB`'s default.
    Native,
    /// `caching_sha2_password`: MySQL's default since 8.0.
    CachingSha2,
    /// `client_ed25519`, of `MariaDB`: a signature, with a key that is made of the password.
    Ed25519,
}

impl Method {
    const ALL: [Self; 3] = [Self::Native, Self::CachingSha2, Self::Ed25519];

    /// The method of this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name().as_bytes() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Ed25519 => "client_ed25519",
        }
    }

    /// What is answered to a nonce; nothing for an empty password, as servers want it.
    pub(super) fn answer(self, password: &[u8], nonce: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519 => signature(password, nonce),
            _ if password.is_empty() => Vec::new(),
            Self::Native => native(password, nonce),
            Self::CachingSha2 => caching_sha2(password, nonce),
        }
    }
}

fn native(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    let mask = Sha1::new().chain_update(nonce).chain_update(twice).finalize();
    xor(&once, &mask)
}

fn caching_sha2(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    let mask = Sha256::new().chain_update(twice).chain_update(nonce).finalize();
    xor(&once, &mask)
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// Signs as in RFC 8032, section 5.1.6, with the password in the place of the 32 bytes that a key is
/// usually made of.
fn signature(password: &[u8], message: &[u8]) -> Vec<u8> {
    let key: [u8; 64] = Sha512::digest(password).into();
    let (scalar, prefix) = key.split_at(32);
    let scalar = clamp_integer(scalar.try_into().expect("half of 64 bytes"));
    let secret = Scalar::from_bytes_mod_order(scalar);
    let public = EdwardsPoint::mul_base(&secret).compress();
    let r = hash(&[prefix, message]);
    let commitment = EdwardsPoint::mul_base(&r).compress();
    let challenge = hash(&[commitment.as_bytes(), public.as_bytes(), message]);
    let s = r + challenge * secret;
    [commitment.to_bytes(), s.to_bytes()].concat()
}

fn hash(parts: &[&[u8]]) -> Scalar {
    let hash = parts.iter().fold(Sha512::new(), Sha512::chain_update);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    /// What a server does: it knows the password hashed twice, and unmasks what is hashed once.
    #[test]
    fn a_server_that_knows_the_password_hashed_twice_accepts_the_native_answer() {
        let nonce = b"0123456789abcdefghij";
        let answer = Method::Native.answer(b"secret", nonce);
        let stored = Sha1::digest(Sha1::digest(b"secret"));
        let mask = Sha1::new().chain_update(nonce).chain_update(stored).finalize();
        assert_eq!(Sha1::digest(xor(&answer, &mask)), stored);
        assert_eq!(answer.len(), 20);
    }

    /// Other clients are tested with the same figures.
    #[test]
    fn the_sha2_answer_is_that_of_other_clients() {
        let nonce =
            [10, 47, 74, 111, 75, 73, 34, 48, 88, 76, 114, 74, 37, 13, 3, 80, 82, 2, 23, 21];
        let expected = "f490e76f66d9d86665ce54d98c78d0acfe2fb0b08b423da807144873d30b312c";
        assert_eq!(Method::CachingSha2.answer(b"secret", &nonce), bytes(expected));
    }

    /// Test 2 of RFC 8032, section 7.1.
    #[test]
    fn a_signature_is_that_of_the_rfc() {
        let password = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(Method::Ed25519.answer(&password, &[0x72]), bytes(expected));
    }

    #[test]
    fn an_empty_password_is_answered_by_nothing() {
        assert!(Method::Native.answer(b"", b"0123456789abcdefghij").is_empty());
        assert!(Method::CachingSha2.answer(b"", b"0123456789abcdefghij").is_empty());
    }
}
