//! Messages that quote what somebody else wrote: cut, and without characters that a terminal would obey.

use std::borrow::Cow;
use std::path::Path;

/// Most characters of a quoted piece of input.
const QUOTED: usize = 120;
/// Most characters of a whole message.
const MESSAGE: usize = 4000;

/// The message fit to be shown: control characters are escaped, a quoted piece or a word of more than 120 characters is cut unless it
/// is a path of this machine, and what is still too long is cut at its end.
pub(crate) fn brief(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c == '\n' || !is_unsafe(c);
    if text.chars().all(plain) && text.chars().count() <= QUOTED {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(MESSAGE));
    let mut rest = text;
    while !rest.is_empty() && out.chars().count() < MESSAGE {
        let (piece, after) = next(rest);
        out += &cut(piece);
        rest = after;
    }
    if !rest.is_empty() || out.chars().count() > MESSAGE {
        out = out.chars().take(MESSAGE).collect();
        out.push('…');
    }
    Cow::Owned(out)
}

/// Control characters, and those that change the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first piece: what stands between two quotes of a kind with them, or up to the next space or quote.
fn next(text: &str) -> (&str, &str) {
    let mut chars = text.char_indices();
    let Some((_, first)) = chars.next() else {
        return (text, "");
    };
    let end = match first {
        '`' | '"' => {
            let inside = &text[1..];
            let mut escaped = false;
            let close = inside.char_indices().find(|&(_, c)| {
                let found = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                found
            });
            close.map(|(at, _)| at + 2)
        }
        _ => chars
            .find(|&(_, c)| matches!(c, ' ' | '\n' | '`' | '"'))
            .map(|(at, c)| if matches!(c, ' ' | '\n') { at + 1 } else { at }),
    };
    text.split_at(end.unwrap_or(text.len()))
}

fn cut(piece: &str) -> String {
    let bare = piece.trim_matches(['`', '"', ' ', ':', ',']);
    if piece.chars().count() <= QUOTED + 2 || is_path(bare) {
        return escaped(piece.chars());
    }
    let close = piece
        .chars()
        .next_back()
        .filter(|c| matches!(c, '`' | '"' | ' ' | '\n'));
    let mut out = escaped(piece.chars().take(QUOTED));
    out.push('…');
    out.extend(close);
    out
}

fn escaped(chars: impl Iterator<Item = char>) -> String {
    let mut out = String::new();
    for c in chars {
        match c {
            '\n' => out.push(c),
            c if is_unsafe(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Whether it lies in a folder that there is.
fn is_path(text: &str) -> bool {
    let mut above = Path::new(text).ancestors().skip(1);
    text.len() < 4096 && above.any(|folder| folder.components().count() > 1 && folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_cut_and_escaped() {
        let long = "x".repeat(100_000);
        for quoted in [
            format!("line 3: invalid type: string \"{long}\", expected u32"),
            format!("line 3: unknown variant `{long}`, expected u32"),
            format!("line 3: {long} , expected u32"),
        ] {
            let shown = brief(&quoted);
            assert!(shown.chars().count() < 200, "{shown}");
            assert!(
                shown.starts_with("line 3: ") && shown.ends_with(", expected u32"),
                "{shown}"
            );
        }
        assert_eq!(
            brief("`a\u{1b}[31mb\u{7}\u{202e}`"),
            "`a\\u{1b}[31mb\\u{7}\\u{202e}`"
        );
        assert_eq!(brief("one\ntwo"), "one\ntwo");
        let many = "`quoted with words in it` ".repeat(10_000);
        assert!(brief(&many).chars().count() <= MESSAGE + 1);
        assert_eq!(brief(&"word ".repeat(100)), "word ".repeat(100));
    }

    #[test]
    fn a_path_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder
            .path()
            .join("deep".repeat(20))
            .join("deeper".repeat(20))
            .join("config.json");
        let text = format!("cannot read `{}`: it is gone", path.display());
        assert_eq!(brief(&text), text);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_shown(text in ".{0,400}") {
            let shown = brief(&text).into_owned();
            proptest::prop_assert!(shown.chars().all(|c| c == '\n' || !is_unsafe(c)));
        }
    }
}
