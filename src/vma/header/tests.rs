use super::*;

fn sample() -> Header {
    Header {
        uuid: [9; 16],
        ctime: 1_763_766_000,
        configs: vec![
            Config { name: "qemu-server.conf".into(), data: b"memory: 512\n".to_vec() },
            Config { name: "qemu-server.fw".into(), data: vec![] },
        ],
        devices: vec![
            Device { id: 1, name: "drive-efidisk0".into(), size: 540_672 },
            Device { id: 2, name: "drive-scsi0".into(), size: 32 << 30 },
        ],
    }
}

/// Changes a header and makes its checksum right again.
fn altered(change: impl FnOnce(&mut Vec<u8>)) -> Result<Header, Defect> {
    let mut bytes = sample().encode().unwrap();
    change(&mut bytes);
    let sum = digest(&bytes);
    bytes[MD5_AT..BLOB_OFFSET_AT].copy_from_slice(&sum);
    Header::parse(&bytes)
}

#[test]
fn fields_lie_where_the_writer_puts_them() {
    let bytes = sample().encode().unwrap();
    assert_eq!(bytes[..8], *b"VMA\0\0\0\0\x01");
    assert_eq!(bytes.len() % 512, 0);
    assert_eq!(be32(&bytes, 48), 12288);
    assert_eq!(be32(&bytes, 56) as usize, bytes.len());
    // the first blob: at offset 1, its size little endian, a NUL at its end
    assert_eq!(be32(&bytes, 2044), 1);
    assert_eq!(bytes[12288..12290 + 18], *b"\0\x11\0qemu-server.conf\0");
    // used length of the table, not padded
    assert_eq!(be32(&bytes, 52), 1 + 19 + 14 + 17 + 2 + 17 + 14);
    // device 1 stands in the second entry
    assert_eq!(bytes[4096..4128], [0; 32]);
    assert_eq!(bytes[4136..4144], 540_672u64.to_be_bytes());
    assert_eq!(Header::parse(&bytes).unwrap(), sample());
}

#[test]
fn length_is_told_from_the_first_bytes() {
    let bytes = sample().encode().unwrap();
    for n in 0..Header::PREFIX {
        assert_eq!(Header::measure(&bytes[..n]), Ok(None), "{n} bytes");
    }
    assert_eq!(Header::measure(&bytes[..Header::PREFIX]), Ok(Some(bytes.len())));
    assert_eq!(Header::measure(b"VMDK"), Err(Defect::NotVma(*b"VMDK")));
    assert_eq!(Header::measure(b"P"), Err(Defect::NotVma(*b"P\0\0\0")));
}

#[test]
fn bytes_behind_the_header_do_not_matter() {
    let mut bytes = sample().encode().unwrap();
    bytes.extend_from_slice(b"VMAE");
    assert_eq!(Header::parse(&bytes).unwrap(), sample());
}

#[test]
fn declared_lengths_are_bounded_before_anything_is_allocated() {
    for length in [0, 12288, MAX_HEADER as u32 + 1, u32::MAX] {
        let mut bytes = sample().encode().unwrap();
        put32(&mut bytes, LENGTH_AT, length);
        assert_eq!(Header::parse(&bytes), Err(Defect::HeaderLength(length)));
    }
    let bytes = sample().encode().unwrap();
    assert_eq!(Header::parse(&bytes[..12300]), Err(Defect::ShortHeader(12300)));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = sample().encode().unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        assert!(Header::parse(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn hostile_pointers_sizes_and_names_are_refused() {
    let table = |offset, size| Err(Defect::BlobTable { offset, size });
    assert_eq!(altered(|b| put32(b, BLOB_OFFSET_AT, 4096)), table(4096, 84));
    assert_eq!(altered(|b| put32(b, BLOB_SIZE_AT, u32::MAX)), table(12288, u32::MAX));
    assert_eq!(altered(|b| put32(b, BLOB_OFFSET_AT, u32::MAX)), table(u32::MAX, 84));
    let lost = |what, pointer| Err(Defect::BlobPointer { what, pointer });
    assert_eq!(altered(|b| put32(b, NAMES_AT, 2)), lost("configuration file", 2));
    assert_eq!(altered(|b| put32(b, DATA_AT, u32::MAX)), lost("configuration file", u32::MAX));
    assert_eq!(altered(|b| put32(b, DEVICES_AT + 32, 0)), lost("device", 0));
    // a blob without the closing NUL; a blob that claims more than the table has
    assert_eq!(altered(|b| b[12288 + 3 + 16] = b'x'), lost("configuration file", 1));
    assert_eq!(altered(|b| b[12289] = 0xff), lost("configuration file", 1));
    for name in [b"/tc/passwd-conf!", b"qemu\nserver.conf", b"qemu\xffserver.conf"] {
        let result = altered(|b| b[12291..12291 + 16].copy_from_slice(name));
        assert!(matches!(result, Err(Defect::Name { .. })), "{result:?}");
    }
    let twice = Err(Defect::NameTwice { what: "device", name: "drive-efidisk0".into() });
    assert_eq!(altered(|b| b.copy_within(DEVICES_AT + 32..DEVICES_AT + 36, DEVICES_AT + 64)), twice);
    let huge = (1u64 << 48) + 1;
    assert_eq!(
        altered(|b| b[DEVICES_AT + 40..DEVICES_AT + 48].copy_from_slice(&huge.to_be_bytes())),
        Err(Defect::DeviceSize { name: "drive-efidisk0".into(), size: huge })
    );
    assert_eq!(
        altered(|b| b.copy_within(DEVICES_AT + 32..DEVICES_AT + 64, DEVICES_AT + 255 * 32)),
        Err(Defect::DeviceId(255))
    );
}

#[test]
fn a_header_that_cannot_be_stored_is_not_encoded() {
    let mut header = sample();
    header.configs[0].data = vec![b'x'; 65536];
    assert!(header.encode().is_err());
    let mut header = sample();
    header.devices[1].id = 1;
    assert!(header.encode().is_err());
}
