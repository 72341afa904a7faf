//! Whatever is written is read back; whatever else is read ends in an error, never in a panic.

use std::io;

use proptest::prelude::*;

use super::merge::{Steps, Whole, merge};
use super::*;
use crate::budget::Budget;

/// What a window is to do.
#[derive(Debug, Clone)]
enum Op {
    Add(Vec<u8>),
    Run(u8, usize),
    /// Position as a fraction of what can be copied, and length.
    Source(u16, usize),
    Target(u16, usize),
}

fn op() -> impl Strategy<Value = Op> {
    // Short lengths often, since these have opcodes of their own.
    let len = prop_oneof![4 => 1usize..8, 2 => 8usize..40, 1 => 40usize..3000];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..30).prop_map(Op::Add),
        (any::<u8>(), len.clone()).prop_map(|(byte, len)| Op::Run(byte, len)),
        (any::<u16>(), len.clone()).prop_map(|(at, len)| Op::Source(at, len)),
        (any::<u16>(), len).prop_map(|(at, len)| Op::Target(at, len)),
    ]
}

fn windows() -> impl Strategy<Value = Vec<Vec<Op>>> {
    prop::collection::vec(prop::collection::vec(op(), 1..40), 1..4)
}

/// Writes the windows as a delta of `base` with a base offset of `far`; also returns the target.
fn build(base: &[u8], far: u64, windows: &[Vec<Op>]) -> (Vec<u8>, Vec<u8>) {
    let mut delta = write_header(None, None);
    let mut target = Vec::new();
    let mut builder = WindowBuilder::new();
    for ops in windows {
        let start = target.len();
        for op in ops {
            match op {
                Op::Add(bytes) => {
                    builder.add(bytes);
                    target.extend_from_slice(bytes);
                }
                Op::Run(byte, len) => {
                    builder.run(*byte, *len);
                    target.resize(target.len() + len, *byte);
                }
                Op::Source(at, len) => {
                    let len = (*len).min(base.len());
                    let pos = usize::from(*at) * (base.len() - len) / usize::from(u16::MAX);
                    builder.copy_source(far + pos as u64, len);
                    target.extend_from_slice(&base[pos..pos + len]);
                }
                Op::Target(at, len) => {
                    let known = target.len() - start;
                    if known > 0 {
                        let pos = usize::from(*at) * (known - 1) / usize::from(u16::MAX);
                        builder.copy_target(pos, *len);
                        (0..*len).for_each(|i| target.push(target[start + pos + i]));
                    }
                }
            }
        }
        assert_eq!(builder.target_len(), target.len() - start);
        builder.finish(Some(simd_adler32::adler32(&&target[start..])), &mut delta);
        assert!(builder.is_empty());
    }
    (delta, target)
}

fn apply(delta: &[u8], base: &[u8], far: u64) -> Result<Vec<u8>> {
    let mut reader = Reader::new(delta, Limits::default())?;
    let (mut target, mut out) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item()? {
        let Item::Window(window) = item else { continue };
        let mut source = |pos: u64, buf: &mut [u8]| {
            let from = pos.checked_sub(far).and_then(|pos| usize::try_from(pos).ok());
            let bytes = from.and_then(|from| base.get(from..)?.get(..buf.len()));
            buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        window.apply(&mut source, &mut out)?;
        target.extend_from_slice(&out);
    }
    Ok(target)
}

proptest! {
    #[test]
    fn windows_round_trip(
        base in prop::collection::vec(any::<u8>(), 1..5000),
        windows in windows(),
        far in prop_oneof![Just(0), 0u64..1 << 40],
    ) {
        let (delta, target) = build(&base, far, &windows);
        prop_assert_eq!(apply(&delta, &base, far).unwrap(), target);
    }

    #[test]
    fn merging_is_applying_one_after_the_other(
        base in prop::collection::vec(any::<u8>(), 1..2000),
        (first, second, third) in (windows(), windows(), windows()),
    ) {
        let (delta1, target1) = build(&base, 0, &first);
        prop_assume!(!target1.is_empty());
        let (delta2, target2) = build(&target1, 0, &second);
        prop_assume!(!target2.is_empty());
        let (delta3, target3) = build(&target2, 0, &third);

        let wholes = [delta1, delta2].map(|delta| {
            let mut whole = Whole::new();
            let mut reader = Reader::new(&delta[..], Limits::default()).unwrap();
            while let Some(Item::Window(window)) = reader.next_item().unwrap() {
                whole.push(&window, &mut Budget::of(0)).unwrap();
            }
            whole
        });
        let mut reader = Reader::new(&delta3[..], Limits::default()).unwrap();
        let mut merged = write_header(None, None);
        let (mut builder, mut steps) = (WindowBuilder::new(), Steps::default());
        while let Some(Item::Window(window)) = reader.next_item().unwrap() {
            merge(&window, &wholes, &mut builder, &mut steps).unwrap();
            builder.finish(window.adler32, &mut merged);
        }
        prop_assert_eq!(apply(&merged, &base, 0).unwrap(), target3);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(secondary in 0u8..20, tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut delta = MAGIC.to_vec();
        delta.extend([1, secondary]);
        delta.extend(&tail);
        let _ = apply(&delta, &[0; 1000], 0);
        let mut delta = write_header(None, None);
        delta.extend(&tail);
        let _ = apply(&delta, &[0; 1000], 0);
    }

    #[test]
    fn any_instructions_are_applied_or_refused(
        target_len in 0usize..5000,
        segment in 0u64..100,
        data: Vec<u8>,
        inst in prop::collection::vec(any::<u8>(), 0..60),
        addr in prop::collection::vec(0u8..200, 0..60),
    ) {
        let source = Some(Segment { pos: 0, len: segment });
        let window = Window { target_len, source, data, inst, addr, ..Window::default() };
        let applied = window.apply(&mut |_, buf| { buf.fill(7); Ok(()) }, &mut Vec::new());
        let listed: Result<Vec<_>> = window.instructions().collect();
        prop_assert_eq!(applied.is_ok(), listed.is_ok());
        if let Ok(listed) = listed {
            prop_assert_eq!(listed.iter().map(Inst::len).sum::<usize>(), target_len);
        }
    }
}

#[test]
fn the_segment_is_as_tight_as_can_be() {
    let mut builder = WindowBuilder::new();
    assert_eq!(builder.span_with(5000, 10), 10);
    builder.copy_source(5000, 10);
    builder.add(b"x");
    assert_eq!(builder.span_with(4000, 10), 1010);
    assert_eq!(builder.span_with(5005, 100), 105);
    builder.copy_source(4000, 10);
    let mut delta = write_header(None, None);
    builder.finish(None, &mut delta);
    let mut reader = Reader::new(&delta[..], Limits::default()).unwrap();
    let Some(Item::Window(window)) = reader.next_item().unwrap() else { panic!("a window") };
    assert_eq!(window.source, Some(Segment { pos: 4000, len: 1010 }));
    assert_eq!(window.adler32, None);
}

#[test]
fn neighbours_share_an_opcode() {
    let instructions = |fill: &dyn Fn(&mut WindowBuilder)| {
        let mut builder = WindowBuilder::new();
        fill(&mut builder);
        let mut delta = write_header(None, None);
        builder.finish(None, &mut delta);
        let mut reader = Reader::new(&delta[..], Limits::default()).unwrap();
        let Some(Item::Window(window)) = reader.next_item().unwrap() else { panic!("a window") };
        window.inst
    };
    // ADD 3 and COPY 5 in mode 0; COPY 4 in mode 1 (here) and ADD 1.
    assert_eq!(
        instructions(&|b| {
            b.add(b"abc");
            b.copy_source(0, 5)
        }),
        [163 + 6 + 1]
    );
    assert_eq!(
        instructions(&|b| {
            b.copy_source(9, 4);
            b.add(b"a")
        }),
        [247]
    );
    // What continues its neighbour is one instruction.
    assert_eq!(
        instructions(&|b| {
            b.add(b"ab");
            b.add(b"cde")
        }),
        [6]
    );
    assert_eq!(
        instructions(&|b| {
            b.copy_source(7, 5);
            b.copy_source(12, 5)
        }),
        [19 + 7]
    );
    assert_eq!(
        instructions(&|b| {
            b.run(0, 5);
            b.run(0, 5);
            b.run(1, 5)
        }),
        [0, 10, 0, 5]
    );
}

#[test]
#[should_panic(expected = "copies from its own future")]
fn a_window_cannot_copy_what_it_does_not_have() {
    WindowBuilder::new().copy_target(0, 1);
}
