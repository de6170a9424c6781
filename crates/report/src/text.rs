//! Text that came from outside, made fit to print: records, and the output of workloads and
//! guests quoted in them, may hold escape sequences that would drive the reader's terminal.

/// Replaces what would not print as one character of its own: control characters, line ends and
/// marks that change the direction of writing (Unicode technical report 36, section 3.1).
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { '\u{fffd}' }).collect()
}

fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The last `most` lines of an output that are not blank at its end, without escape sequences
/// (ECMA-48 control sequences and two-character escapes), tabs widened.
pub(crate) fn last_lines(output: &str, most: usize) -> Vec<String> {
    let plain = without_escapes(output);
    let lines: Vec<&str> = plain.trim_end().lines().collect();
    let first = lines.len().saturating_sub(most);
    lines[first..].iter().map(|line| clean(&line.replace('\t', "    ").replace('\r', ""))).collect()
}

fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            kept.push(c);
        } else if chars.next() == Some('[') {
            // Parameters and intermediates up to the final byte, on this line.
            while chars.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)).is_some() {}
            chars.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
    }
    kept
}

/// `text` of at most `width` characters; where it is cut, the last one is `…`.
pub(crate) fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks text at spaces into lines of at most `width` characters; a longer word is cut.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        for c in word.chars() {
            if used == width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(c);
            used += 1;
        }
    }
    lines.push(line);
    lines
}

/// Breaks a line of output into parts of at most `width` characters, at a space where there is one,
/// and keeps every blank, since output may be in columns.
pub(crate) fn fold(line: &str, width: usize) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let width = width.max(1);
    let mut parts = Vec::new();
    let mut rest = chars.as_slice();
    while rest.len() > width {
        let space =
            rest[..width].iter().rposition(|c| *c == ' ').filter(|place| *place > width / 2);
        let (part, after) = rest.split_at(space.map_or(width, |place| place + 1));
        parts.push(part.iter().collect());
        rest = after;
    }
    parts.push(rest.iter().collect());
    parts
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        let output = "one\r\n\u{1b}[31;1mtwo\u{1b}[0m\tx\n\u{1b}7three\u{7}\n\n";
        assert_eq!(last_lines(output, 15), ["one", "two    x", "three\u{fffd}"]);
        assert_eq!(last_lines(output, 1), ["three\u{fffd}"]);
        assert_eq!(last_lines("", 15), [""; 0]);
    }

    #[test]
    fn wraps_at_spaces_and_cuts_what_has_none() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn folds_keep_blanks() {
        assert_eq!(fold("a   b cdef", 7), ["a   b ", "cdef"]);
        assert_eq!(fold("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(fold("", 3), [""]);
    }

    #[test]
    fn lists_and_clips() {
        let names = ["a", "b", "c"].map(String::from);
        assert_eq!(list(&names), "a, b and c");
        assert_eq!(list(&names[..2]), "a and b");
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("abcd", 4), "abcd");
    }

    proptest! {
        #[test]
        fn any_text_becomes_printable_and_narrow(text in any::<String>(), width in 0_usize..40) {
            for line in wrap(&clean(&text), width) {
                prop_assert!(line.chars().count() <= width.max(1));
                prop_assert!(line.chars().all(is_plain));
            }
            prop_assert!(fold(&text, width).iter().all(|part| part.chars().count() <= width.max(1)));
            prop_assert_eq!(fold(&text, width).concat(), text.as_str());
            prop_assert!(last_lines(&text, 3).iter().all(|line| line.chars().all(is_plain)));
        }
    }
}
