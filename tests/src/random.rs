//! Which numbers look random, and are the same when they are asked for again?

/// Numbers that look random and are the same for the same seed (Steele, Lea and Flood 2014, SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Those of this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, from 0 to below this.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
