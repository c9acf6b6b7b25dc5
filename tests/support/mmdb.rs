//! Writes a small MaxMind database (format 2.0): one network and what is said of it.

/// A database that knows 203.0.113.0/24 alone.
pub fn database(system: u32, organization: &str) -> Vec<u8> {
    let network = [203u8, 0, 113];
    let depth = 24u32;
    let mut file = Vec::new();
    // One node a bit: the bit's side leads on, the other one nowhere.
    for bit in 0..depth {
        let side = network[bit as usize / 8] >> (7 - bit % 8) & 1;
        let on = if bit + 1 == depth { depth + 16 } else { bit + 1 };
        let sides = if side == 0 { [on, depth] } else { [depth, on] };
        file.extend(sides.iter().flat_map(|record| record.to_be_bytes().into_iter().skip(1)));
    }
    file.extend([0; 16]);
    file.extend(map(&[
        ("autonomous_system_number", unsigned(6, system.into())),
        ("autonomous_system_organization", text(organization)),
    ]));
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.extend(map(&[
        ("binary_format_major_version", unsigned(5, 2)),
        ("binary_format_minor_version", unsigned(5, 0)),
        ("build_epoch", unsigned(9, 1_777_860_669)),
        ("database_type", text("Test-ASN")),
        ("description", map(&[("en", text("made by a test"))])),
        ("ip_version", unsigned(5, 4)),
        ("languages", head(11, 0)),
        ("node_count", unsigned(6, depth.into())),
        ("record_size", unsigned(5, 24)),
    ]));
    file
}

/// Type and size of a value; the types above 7 stand in an octet of their own.
fn head(kind: u8, size: usize) -> Vec<u8> {
    let (short, long) = if size < 29 { (size as u8, None) } else { (29, Some((size - 29) as u8)) };
    let first = if kind < 8 { vec![kind << 5 | short] } else { vec![short, kind - 7] };
    first.into_iter().chain(long).collect()
}

fn text(text: &str) -> Vec<u8> {
    [head(2, text.len()), text.as_bytes().to_vec()].concat()
}

fn unsigned(kind: u8, value: u64) -> Vec<u8> {
    let octets: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
    [head(kind, octets.len()), octets].concat()
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries_bytes = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat());
    head(7, entries.len()).into_iter().chain(entries_bytes).collect()
}
