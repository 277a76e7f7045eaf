//! Counts and sizes as people write them: `820k`, `5.8M rows`, `1.2 GB` (decimal units).

/// `303`, `5.8M`: plain up to 9999, then three digits and a unit.
pub fn count(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { scaled(count, &["k", "M", "G", "T"], "") }
}

/// `512 B`, `21.4 KB`, `1.2 GB`.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1000 { format!("{bytes} B") } else { scaled(bytes, &["KB", "MB", "GB", "TB"], " ") }
}

/// `303 rows · 21.4 KB`; the size alone where the rows are not told.
pub fn rows_and_size(rows: Option<u64>, size: u64) -> String {
    match rows {
        Some(1) => format!("1 row · {}", bytes(size)),
        Some(rows) => format!("{} rows · {}", count(rows), bytes(size)),
        None => bytes(size),
    }
}

/// One decimal below 100 of a unit, none above; never `1000` of one.
fn scaled(value: u64, units: &[&str], space: &str) -> String {
    let mut tenths = u128::from(value) * 10;
    let mut unit = "";
    for next in units {
        // Rounded to what will be shown, 999.95 is already the next unit.
        if tenths < 9_995 {
            break;
        }
        tenths = (tenths + 500) / 1000;
        unit = next;
    }
    let (whole, fraction) = (tenths / 10, tenths % 10);
    if whole >= 100 || fraction == 0 {
        format!("{}{space}{unit}", (tenths + if whole >= 100 { 5 } else { 0 }) / 10)
    } else {
        format!("{whole}.{fraction}{space}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_read_as_on_the_page() {
        let counts = [
            (0, "0"),
            (303, "303"),
            (9_999, "9999"),
            (12_340, "12.3k"),
            (820_000, "820k"),
            (5_800_000, "5.8M"),
        ];
        for (value, text) in counts {
            assert_eq!(count(value), text);
        }
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 KB"),
            (21_400, "21.4 KB"),
            (999_999, "1 MB"),
            (1_200_000_000, "1.2 GB"),
        ];
        for (value, text) in sizes {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(rows_and_size(Some(303), 21_400), "303 rows · 21.4 KB");
        assert_eq!(rows_and_size(Some(1), 10), "1 row · 10 B");
        assert_eq!(rows_and_size(None, 10), "10 B");
    }
}
