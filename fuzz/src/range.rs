//! What holds for `Range`, `Content-Range` and `n`: one a line, then a size.

use registry_core::{
    page::parse_limit,
    range::{Selection, Slice, parse_content_range, select},
    upload::Progress,
};

use super::text;

/// What is selected lies within the blob, and selects itself when it is asked for.
pub fn check(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (range, content_range, limit, size) = (line(), line(), line(), line());
    let size = size.parse::<u64>().unwrap_or(0);
    for size in [0, 1, 10, 1 << 20, u64::MAX, size] {
        if let Selection::Part(slice) = select(Some(range), size) {
            assert!(slice.start < slice.end && slice.end <= size, "{slice:?} of {size}");
            let again = format!("bytes={}-{}", slice.start, slice.end - 1);
            assert_eq!(select(Some(&again), size), Selection::Part(slice));
        }
    }
    if let Some(slice) = parse_content_range(content_range) {
        assert!(slice.start < slice.end, "{slice:?}");
        let (first, last) = (slice.start, slice.end - 1);
        for form in [format!("{first}-{last}"), format!("bytes {first}-{last}/*")] {
            assert_eq!(parse_content_range(&form), Some(slice));
        }
        accepts_only_what_comes_next(slice, size);
    }
    if let Ok(Some(limit)) = parse_limit(Some(limit)) {
        assert_eq!(parse_limit(Some(&limit.to_string())), Ok(Some(limit)));
    }
}

fn accepts_only_what_comes_next(slice: Slice, next: u64) {
    for length in [None, Some(0), Some(slice.end - slice.start), Some(next)] {
        if (Progress { next }).accept(Some(slice), length).is_ok() {
            assert_eq!(slice.start, next);
            assert!(length.is_none_or(|length| length == slice.end - slice.start));
        }
    }
}
