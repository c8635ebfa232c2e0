//! Long texts to token ids. In: a text and how many tokens are enough. Out: the ids that the text has as a whole, without the
//! memory that tokenising it as a whole takes (some 150 bytes for each of its bytes).
//!
//! Pieces of the text are tokenised, each with the end of the one before it once more. Where both see the same text, their tokens
//! become the same some way behind the place where the second begins and before the first ends; there the two are joined. Where
//! they do not, such as in a very long word, the piece begins earlier.

use super::tokenizer::{Token, Tokenizer};
use crate::error::Result;
use rayon::prelude::*;

/// Bytes of a piece. Shorter texts are tokenised as a whole.
const PIECE: usize = 1 << 18;
/// Bytes that two pieces share, and what is tried where they do not agree within that.
const OVERLAPS: [usize; 3] = [1 << 12, 1 << 14, 1 << 16];
/// Tokens that must be the same in both pieces.
const AGREEING: usize = 24;

/// The ids of `text`, at least the first `enough` of them, and whether these are all; with the special tokens that the tokenizer
/// adds by default, or without.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub(super) fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    special: bool,
    enough: usize,
) -> Result<(Vec<u32>, bool)> {
    encode_by(tokenizer, text, special, enough, PIECE, OVERLAPS)
}

fn encode_by(
    tokenizer: &Tokenizer,
    text: &str,
    special: bool,
    enough: usize,
    piece: usize,
    overlaps: [usize; 3],
) -> Result<(Vec<u32>, bool)> {
    let whole = || {
        let ids = match special {
            true => tokenizer.encode(text),
            false => tokenizer.encode_without_special_tokens(text),
        };
        Ok((ids?, true))
    };
    if text.len() <= piece {
        return whole();
    }
    let Some((mut ids, after)) = added(tokenizer, special)? else {
        return whole();
    };
    let bounds: Vec<usize> = (0..=text.len().div_ceil(piece))
        .map(|n| text.floor_char_boundary(n * piece))
        .collect();
    let pieces: Vec<(usize, usize)> = bounds.windows(2).map(|bound| (bound[0], bound[1])).collect();
    let mut current: Vec<Token> = Vec::new();
    // A few at a time: who wants the beginning of a text only does not wait for more.
    for batch in pieces.chunks(rayon::current_num_threads().max(1)) {
        let encoded: Vec<Result<Vec<Token>>> = batch
            .par_iter()
            .map(|&(begin, end)| tokens(tokenizer, text, begin, overlaps[0], end))
            .collect();
        for (&(begin, end), next) in batch.iter().zip(encoded) {
            let mut next = next?;
            if begin > 0 {
                let mut found = junction(text, &current, &next);
                for overlap in &overlaps[1..] {
                    if found.is_none() {
                        next = tokens(tokenizer, text, begin, *overlap, end)?;
                        found = junction(text, &current, &next);
                    }
                }
                let Some((last, first)) = found else {
                    return whole();
                };
                ids.extend(current[..last].iter().map(|token| token.id));
                next.drain(..first);
            }
            current = next;
            if ids.len() >= enough {
                return Ok((ids, false));
            }
        }
    }
    ids.extend(current.iter().map(|token| token.id));
    ids.extend(after);
    Ok((ids, true))
}

/// The special tokens before and after a text; `None` where they cannot be told from its own.
fn added(tokenizer: &Tokenizer, special: bool) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
    if !special {
        return Ok(Some((Vec::new(), Vec::new())));
    }
    let bare = tokenizer.encode_without_special_tokens("a")?;
    let with = tokenizer.encode("a")?;
    let place = (0..=with.len().saturating_sub(bare.len())).find(|at| with[*at..].starts_with(&bare));
    Ok(place
        .filter(|_| !bare.is_empty())
        .map(|at| (with[..at].to_vec(), with[at + bare.len()..].to_vec())))
}

/// Tokens of the piece that ends at `end`, and of `overlap` bytes before its beginning; none where their places are wrong, as they
/// are behind a character that the tokenizer passes over.
fn tokens(tokenizer: &Tokenizer, text: &str, begin: usize, overlap: usize, end: usize) -> Result<Vec<Token>> {
    let begin = text.floor_char_boundary(begin.saturating_sub(overlap));
    let part = &text[begin..end];
    let mut tokens = tokenizer.tokens(part)?;
    let rest = tokens.last().and_then(|last| part.get(last.end..));
    if rest.is_none_or(|rest| !rest.trim().is_empty()) {
        tokens.clear();
    }
    for token in &mut tokens {
        token.start += begin;
        token.end += begin;
    }
    Ok(tokens)
}

/// How many tokens of one piece are taken, and from which token of the next on.
fn junction(text: &str, current: &[Token], next: &[Token]) -> Option<(usize, usize)> {
    let begin = next.first()?.start;
    let mut last = current.partition_point(|token| token.start < begin);
    let mut first = 0;
    while last + AGREEING < current.len() && first + AGREEING < next.len() {
        let (one, other) = (&current[last..last + AGREEING], &next[first..first + AGREEING]);
        if one == other {
            // The first of them begins a character in both, and a change of kind is among them: within one long word, of digits say,
            // pieces may agree by chance.
            let begins = |tokens: &[Token], at: usize| at > 0 && tokens[at - 1].end <= tokens[at].start;
            let part = text.get(one[0].start..one[AGREEING - 1].end)?;
            if begins(current, last) && begins(next, first) && !part.chars().all(char::is_alphanumeric) {
                return Some((last, first));
            }
        }
        match one[0].start.cmp(&other[0].start) {
            std::cmp::Ordering::Less => last += 1,
            std::cmp::Ordering::Greater => first += 1,
            std::cmp::Ordering::Equal => {
                last += 1;
                first += 1;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn demo() -> Tokenizer {
        Tokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini")).unwrap()
    }

    /// The demo's tokenizer as SentencePiece-like ones are: blanks are letters, one is put before the text, and all of it is one word.
    fn one_word() -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini/tokenizer.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        json["pre_tokenizer"] = serde_json::Value::Null;
        json["model"]["unk_token"] = "</s>".into();
        json["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{120}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{120}"},
        ]});
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        Tokenizer::open(dir.path()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn pieces_have_the_ids_of_the_whole(
            words in proptest::collection::vec(
                prop_oneof![
                    8 => "[a-z]{1,9}",
                    2 => "[A-Z0-9,.!?'-]{1,6}",
                    2 => "[ \n\t]{1,5}",
                    1 => "[\u{e9}\u{65e5}\u{672c}\u{1f600}\u{301}]{1,4}",
                    1 => Just("</s>".to_owned()),
                    1 => Just("a".repeat(60)),
                ],
                100..400,
            ),
            piece in 150usize..700,
            special: bool,
        ) {
            for tokenizer in [demo(), one_word()] {
                let text = words.join(" ");
                let whole = match special {
                    true => tokenizer.encode(&text).unwrap(),
                    false => tokenizer.encode_without_special_tokens(&text).unwrap(),
                };
                let found = encode_by(&tokenizer, &text, special, usize::MAX, piece, [120, 240, 480]).unwrap();
                let differs = found.0.iter().zip(&whole).position(|(a, b)| a != b);
                let near = differs.map(|at| {
                    let range = at.saturating_sub(4)..(at + 4).min(whole.len().min(found.0.len()));
                    let tokens = |ids: &[u32]| ids.iter().filter_map(|id| tokenizer.token(*id)).collect::<Vec<_>>();
                    (tokens(&found.0[range.clone()]), tokens(&whole[range]))
                });
                prop_assert!(found == (whole.clone(), true), "{differs:?} {near:?}");
                let (some, all) = encode_by(&tokenizer, &text, special, 20, piece, [120, 240, 480]).unwrap();
                prop_assert!(all || some.len() >= 20);
                prop_assert_eq!(&some[..], &whole[..some.len()]);
            }
        }
    }

    #[test]
    fn texts_without_an_end() {
        for tokenizer in [demo(), one_word()] {
            for text in ["a", " ", "\n", "12", "\u{65e5}", "ab \n"] {
                let text = text.repeat(1 + 3000 / text.len());
                let whole = tokenizer.encode(&text).unwrap();
                let found = encode_by(&tokenizer, &text, true, usize::MAX, 500, [60, 120, 240]).unwrap();
                assert_eq!(found, (whole, true));
            }
        }
    }
}
