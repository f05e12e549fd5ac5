//! Random bytes of the system.

use ring::rand::{SecureRandom as _, SystemRandom};

/// So many of them.
///
/// # Errors
/// It has none.
pub fn random<const N: usize>() -> Result<[u8; N], std::io::Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}
