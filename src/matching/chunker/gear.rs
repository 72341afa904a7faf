//! The gear table: a random number for each value of a byte, from which rolling hashes are made.

/// 256 random 64-bit numbers (splitmix64 from 0). They must never change: the cuts and the seeds in the maps of existing
/// full backups depend on them.
pub(in crate::matching) static GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0u64;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
};
