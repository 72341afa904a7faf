//! Damaged, truncated and hostile deltas.

use pve_diff_backup::vcdiff::*;

use crate::tools::*;

fn small() -> (Vec<u8>, Vec<u8>, Encode) {
    let (base, target) = pair(21, 2000);
    let app = AppHeader { base_name: b"b".to_vec(), end_record: true, ..AppHeader::default() };
    (base, target, Encode { window: 700, app: Some(app), end: true, ..Encode::default() })
}

#[test]
fn every_truncation_is_an_error() {
    let (base, target, form) = small();
    for secondary in [None, Some((Secondary::Lzma, 1)), Some((Secondary::Djw, 9)), Some((Secondary::Fgk, 0))]
    {
        let delta = Encode { secondary, ..form.clone() }.run(&base, &target);
        assert_eq!(decode(&delta, &base).unwrap(), target);
        for len in 0..delta.len() {
            assert!(decode(&delta[..len], &base).is_err(), "cut to {len} of {}", delta.len());
        }
    }
}

#[test]
fn a_cut_at_a_window_boundary_is_named() {
    let (base, target, form) = small();
    let delta = form.run(&base, &target);
    let mut reader = Reader::new(&delta[..], Limits::default()).unwrap();
    let mut boundaries = vec![reader.offset()];
    while reader.next_item().unwrap().is_some() {
        boundaries.push(reader.offset());
    }
    assert_eq!(boundaries.pop(), Some(delta.len() as u64));
    assert!(boundaries.len() > 2);
    for len in boundaries {
        assert!(
            matches!(decode(&delta[..len as usize], &base), Err(Error::MissingEnd { offset }) if offset == len)
        );
    }
}

#[test]
fn every_flipped_byte_is_an_error_or_harmless() {
    let (base, target, form) = small();
    for secondary in [None, Some((Secondary::Lzma, 1)), Some((Secondary::Djw, 9)), Some((Secondary::Fgk, 0))]
    {
        let delta = Encode { secondary, ..form.clone() }.run(&base, &target);
        for at in 0..delta.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                let mut damaged = delta.clone();
                damaged[at] ^= flip;
                if let Ok(decoded) = decode(&damaged, &base) {
                    assert!(decoded == target, "wrong output after flip {flip:#x} at {at}");
                }
            }
        }
    }
}
