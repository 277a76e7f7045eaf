//! Text that strangers wrote, made fit for a terminal and a log.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
};

/// Most characters that [`line`] takes of a text.
pub const LINE_CHARS_MAX: usize = 2000;

/// Escapes what a terminal would act on or show nothing for: controls, marks that reorder text, separators of lines
/// and paragraphs, whatever has no glyph. Line feeds and tabs stay.
///
/// The form is JSON's, `\u202e`, so that within a JSON string it is still the same text.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| is_shown(c) || matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if matches!(c, '\n' | '\t') { out.push(c) } else { push(&mut out, c) }
    }
    Cow::Owned(out)
}

/// [`printable`] on one line, of [`LINE_CHARS_MAX`] characters of the text at most: an error that quotes a file is no
/// longer than that and cannot pass for two.
pub fn line(text: impl Display) -> String {
    let text = text.to_string();
    let end = text.char_indices().nth(LINE_CHARS_MAX).map_or(text.len(), |(end, _)| end);
    let (kept, rest) = text.split_at(end);
    let mut out = String::with_capacity(kept.len() + 32);
    kept.chars().for_each(|c| push(&mut out, c));
    if !rest.is_empty() {
        let _ = write!(out, "… and {} more bytes", rest.len());
    }
    out
}

fn push(out: &mut String, c: char) {
    match c {
        c if is_shown(c) => out.push(c),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// Beyond ASCII by the standard library's table of printable characters. It is asked about a letter and the character,
/// since it would escape a combining mark that stands alone.
fn is_shown(c: char) -> bool {
    match c.is_ascii() {
        true => !c.is_ascii_control(),
        false => String::from_iter(['a', c]).escape_debug().count() == 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "\u{1b}[2J\r\u{7f}\u{9b}31m\u{61c}\u{200b}\u{200f}\u{202e}\u{2028}\u{2066}\u{feff}\u{e0041}";

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        for text in [printable(HOSTILE).into_owned(), line(HOSTILE)] {
            let rest: String = text.chars().filter(|c| !c.is_ascii_graphic()).collect();
            assert_eq!(rest, "", "{text}");
        }
        assert_eq!(printable("a\tb\n"), "a\tb\n");
        assert_eq!(line("a\tb\n"), "a\\tb\\n");
    }

    #[test]
    fn letters_of_any_language_stay() {
        for text in ["İstanbul'da \"yaş\" ≤ 5 · ε", "e\u{301} 🏥 日本 עברית\\", ""] {
            assert_eq!((printable(text), line(text)), (text.into(), text.to_owned()));
        }
    }

    #[test]
    fn json_stays_the_same_document() {
        let json =
            serde_json::to_string_pretty(&serde_json::json!({ "name": HOSTILE, "other": ["é\n"] })).unwrap();
        let shown = printable(&json);
        assert_ne!(shown, json);
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&shown), read(&json));
    }

    #[test]
    fn a_line_is_bounded() {
        let long = line("€".repeat(LINE_CHARS_MAX + 7));
        assert_eq!(long, format!("{}… and 21 more bytes", "€".repeat(LINE_CHARS_MAX)));
    }
}
