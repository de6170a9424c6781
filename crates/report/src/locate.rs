//! From a position in JSON text to the path of the field there: the parser tells a line and a
//! column, a reader of a long record needs `trials[3].events_ns.ready`.

/// The longest path told.
const MAX_DEPTH: usize = 12;
/// The longest key told.
const MAX_KEY: usize = 40;

/// One level of nesting.
enum Level {
    /// Inside an object, at the value of a key; none before the first key.
    Object { key: Option<String> },
    /// Inside an array, at an element.
    Array { index: usize },
}

/// The path of the value that `line` and `column`, as `serde_json` counts them (lines from 1,
/// columns in bytes read of that line), lie in or just behind; at a closing bracket that is what it
/// closes. Empty at the top. Nothing is
/// checked: of text that is not JSON some path comes out, or none.
pub(crate) fn field_at(bytes: &[u8], line: usize, column: usize) -> String {
    let before: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let end = before.saturating_add(column).min(bytes.len());
    let mut levels: Vec<Level> = Vec::new();
    let mut text: Option<String> = None;
    let mut at = 0;
    while at < end {
        match bytes[at] {
            b'"' => {
                let close = string_end(bytes, at + 1).min(end);
                text =
                    Some(String::from_utf8_lossy(&bytes[at + 1..close.max(at + 1)]).into_owned());
                at = close;
            }
            b':' => {
                if let Some(Level::Object { key }) = levels.last_mut() {
                    *key = text.take();
                }
            }
            b'{' => levels.push(Level::Object { key: None }),
            b'[' => levels.push(Level::Array { index: 0 }),
            b'}' | b']' => {
                levels.pop();
            }
            b',' if at + 1 < end => match levels.last_mut() {
                Some(Level::Object { key }) => *key = None,
                Some(Level::Array { index }) => *index += 1,
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    path(&levels)
}

/// Where a string that starts at `at` has its closing quote.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

fn path(levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels.iter().take(MAX_DEPTH) {
        match level {
            Level::Object { key: Some(key) } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&crate::text::clip(key, MAX_KEY));
            }
            Level::Object { key: None } => {}
            Level::Array { index } => path.push_str(&format!("[{index}]")),
        }
    }
    if levels.len() > MAX_DEPTH {
        path.push('…');
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        let text = "{\"a\": {\"b\": 1},\n \"list\": [10, {\"c,:[\": \"x]\"}, 30]}";
        let at = |needle: &str| {
            let offset = text.find(needle).unwrap() + needle.len();
            let line = text[..offset].matches('\n').count() + 1;
            let column = offset - text[..offset].rfind('\n').map_or(0, |end| end + 1);
            field_at(text.as_bytes(), line, column)
        };
        assert_eq!(at("1"), "a.b");
        assert_eq!(at("\"x]\""), "list[1].c,:[");
        assert_eq!(at("30"), "list[2]");
        assert_eq!(at("1}"), "a");
        assert_eq!(at("{"), "");
    }

    proptest! {
        #[test]
        fn any_bytes_and_position(bytes in prop::collection::vec(any::<u8>(), 0..80), line in 0_usize..5, column: usize) {
            field_at(&bytes, line, column);
        }

        #[test]
        fn anything_like_json(text in "[\\[\\]{}:,\"\\\\a1\n]{0,60}", line in 0_usize..4, column in 0_usize..70) {
            field_at(text.as_bytes(), line, column);
        }
    }
}
