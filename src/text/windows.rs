//! Token windows. In: documents or a text, and the model's tokenizer. Out: windows of equal length, and in words how they
//! were taken; `prune` runs them through the decoder, `eval` scores them.

use super::documents::joined_text;
use super::pieces;
use super::{DataError, DataSource, Document, Documents, EvaluationText};
use crate::error::{ConfigError, Error, Result};
use crate::text::Tokenizer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Windows of token ids of equal length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWindows {
    /// `[windows][seq_len]`.
    pub ids: Vec<Vec<u32>>,
    /// Tokens in a window.
    pub seq_len: usize,
    /// How the windows were taken, for people.
    pub protocol: String,
    /// The data files and their hash.
    pub source: DataSource,
    /// Tokens of the data that was tokenised to get them.
    pub total_tokens: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Windows that were asked for and are counted only: a plan needs no more than some of them.
    pub undrawn: usize,
}

/// [`TokenWindows`] without the ids, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowsSummary {
    /// Number of windows.
    pub windows: usize,
    /// Tokens in a window.
    pub seq_len: usize,
    /// Tokens in all windows.
    pub tokens: usize,
    /// Tokens of the data that was tokenised to get them.
    pub total_tokens: usize,
    /// Names of the data files.
    pub sources: Vec<String>,
    /// SHA-256 in hex of the data files' bytes.
    pub sha256: String,
    /// How the windows were taken.
    pub protocol: String,
}

impl TokenWindows {
    /// No text, for methods that need none.
    pub fn none() -> Self {
        Self {
            ids: Vec::new(),
            seq_len: 0,
            protocol: "no text: the magnitudes of the weights decide".into(),
            source: DataSource {
                names: Vec::new(),
                sha256: format!("{:x}", Sha256::digest("")),
                paths: Vec::new(),
            },
            total_tokens: 0,
            seed: 0,
            undrawn: 0,
        }
    }

    /// Tokens of all windows, those too that are counted only.
    pub fn tokens(&self) -> usize {
        (self.ids.len() + self.undrawn).saturating_mul(self.seq_len)
    }

    /// Refuses windows that hold nothing to predict.
    ///
    /// # Errors
    /// When a window has fewer than two tokens; the message names `setting`.
    pub(crate) fn check(&self, setting: &'static str) -> Result<()> {
        check_windows(&self.ids, setting)
    }

    /// Keeps the first `max_windows` windows and says so.
    pub fn truncate(&mut self, max_windows: usize) {
        if max_windows < self.ids.len() {
            self.ids.truncate(max_windows);
            self.protocol
                .push_str(&format!(", the first {max_windows} of them"));
        }
    }

    /// Everything but the ids.
    pub fn summary(&self) -> WindowsSummary {
        WindowsSummary {
            windows: self.ids.len(),
            seq_len: self.seq_len,
            tokens: self.ids.len() * self.seq_len,
            total_tokens: self.total_tokens,
            sources: self.source.names.clone(),
            sha256: self.source.sha256.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

/// Refuses windows that hold nothing to predict.
///
/// # Errors
/// When a window has fewer than two tokens; the message names `setting`.
pub(crate) fn check_windows(windows: &[Vec<u32>], setting: &'static str) -> Result<()> {
    if windows.first().map_or(0, Vec::len) < 2 {
        return Err(Error::from(ConfigError::Setting {
            setting,
            reason: "a window needs at least two tokens, one to read and one to predict".into(),
        }));
    }
    Ok(())
}

/// Draws `samples` random windows of `seq_len` tokens for calibration, the way SparseGPT's loader does, which the published
/// results of this field share: a random document, tokenised alone with its special tokens; if it has more than `seq_len`
/// tokens, a random window of it, else another document. Joined documents are tokenised once as one stream, and
/// windows start anywhere in it.
///
/// The same documents, tokenizer and seed give the same windows on every machine.
///
/// # Errors
/// When no document, or not the whole stream, has more than `seq_len` tokens, or `samples` or `seq_len` is zero.
pub fn draw_windows(
    tokenizer: &Tokenizer,
    documents: &Documents,
    samples: usize,
    seq_len: usize,
    seed: u64,
) -> Result<TokenWindows> {
    not_zero("‹samples›", samples)?;
    not_zero("‹seq-len›", seq_len)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (ids, total_tokens, origin) = if documents.joined {
        let (ids, tokens) = draw_from_stream(tokenizer, documents, samples, seq_len, &mut rng)?;
        (ids, tokens, format!("one stream of {tokens} tokens"))
    } else {
        let drawn = draw_from_documents(tokenizer, documents, samples, seq_len, &mut rng)?;
        let origin = format!("{} of {} documents", drawn.distinct, documents.texts.len());
        (drawn.ids, drawn.tokens, origin)
    };
    let protocol = described(
        &documents.protocol,
        &documents.texts,
        format!("{samples} random windows of {seq_len} tokens from {origin}, seed {seed}"),
    );
    Ok(TokenWindows {
        ids,
        seq_len,
        protocol,
        source: documents.source.clone(),
        total_tokens,
        seed,
        undrawn: 0,
    })
}

fn not_zero(setting: &'static str, value: usize) -> Result<()> {
    match value {
        0 => Err(Error::from(ConfigError::Setting {
            setting,
            reason: "must be at least 1".into(),
        })),
        _ => Ok(()),
    }
}

/// What a published protocol did before, the windows, and whether there were conversations.
fn described(before: &str, texts: &[Document], windows: String) -> String {
    let chats = texts
        .iter()
        .filter(|document| matches!(document, Document::Chat(_)))
        .count();
    let before = if before.is_empty() {
        String::new()
    } else {
        format!("{before}: ")
    };
    let after = match chats {
        0 => String::new(),
        n => format!(", {n} conversations rendered with the model's chat template"),
    };
    format!("{before}{windows}{after}")
}

/// Special tokens are those that the tokenizer adds by itself to a text, and those that the template writes into a
/// conversation.
fn encode(tokenizer: &Tokenizer, document: &Document) -> Result<Vec<u32>> {
    match document {
        Document::Text(text) => Ok(pieces::encode(tokenizer, text, true, usize::MAX)?.0),
        Document::Chat(conversation) => {
            tokenizer.encode_without_special_tokens(&tokenizer.render(conversation)?)
        }
    }
}

/// Tokenises documents as one text, at least as far as `enough` tokens, and tells whether these are all. With a conversation in it,
/// templates alone write special tokens.
fn encode_joined(
    tokenizer: &Tokenizer,
    texts: &[Document],
    separator: &str,
    enough: usize,
) -> Result<(Vec<u32>, bool)> {
    if let Some(text) = joined_text(texts, separator) {
        return pieces::encode(tokenizer, &text, true, enough);
    }
    let rendered = texts.iter().map(|document| match document {
        Document::Text(text) => Ok(text.clone()),
        Document::Chat(conversation) => tokenizer.render(conversation),
    });
    let rendered: Vec<String> = rendered.collect::<Result<_>>()?;
    pieces::encode(tokenizer, &rendered.join(separator), false, enough)
}

/// The start of a random window; `tokens` is larger than `seq_len`. SparseGPT's range: the last start is never taken.
fn random_start(tokens: usize, seq_len: usize, rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..tokens - seq_len)
}

fn draw_from_stream(
    tokenizer: &Tokenizer,
    documents: &Documents,
    samples: usize,
    seq_len: usize,
    rng: &mut ChaCha8Rng,
) -> Result<(Vec<Vec<u32>>, usize)> {
    let (stream, _) = encode_joined(tokenizer, &documents.texts, EvaluationText::SEPARATOR, usize::MAX)?;
    let tokens = stream.len();
    if tokens <= seq_len {
        let source_names = documents.source.in_words();
        return Err(DataError::TooFewTokens {
            source_names,
            tokens,
            needed: seq_len + 1,
            seq_len,
        }
        .into());
    }
    let window = |_| {
        let start = random_start(tokens, seq_len, rng);
        stream[start..start + seq_len].to_vec()
    };
    Ok(((0..samples).map(window).collect(), tokens))
}

struct Drawn {
    ids: Vec<Vec<u32>>,
    /// Documents that the windows come from.
    distinct: usize,
    /// Tokens of all documents that were tokenised.
    tokens: usize,
}

/// A document found too short leaves the draw, so this ends, and every longer document stays equally likely.
fn draw_from_documents(
    tokenizer: &Tokenizer,
    documents: &Documents,
    samples: usize,
    seq_len: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Drawn> {
    let mut candidates: Vec<usize> = (0..documents.texts.len()).collect();
    let mut long: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    let (mut tokens, mut longest) = (0, 0);
    let mut ids = Vec::with_capacity(samples);
    while ids.len() < samples {
        if candidates.is_empty() {
            let (source_names, documents) = (documents.source.in_words(), documents.texts.len());
            return Err(DataError::NoLongDocument {
                source_names,
                documents,
                tokens,
                longest,
                seq_len,
            }
            .into());
        }
        let slot = rng.random_range(0..candidates.len());
        let document = candidates[slot];
        if let std::collections::btree_map::Entry::Vacant(vacant) = long.entry(document) {
            let encoded = encode(tokenizer, &documents.texts[document])?;
            tokens += encoded.len();
            longest = longest.max(encoded.len());
            if encoded.len() <= seq_len {
                candidates.swap_remove(slot);
                continue;
            }
            vacant.insert(encoded);
        }
        let encoded = &long[&document];
        let start = random_start(encoded.len(), seq_len, rng);
        ids.push(encoded[start..start + seq_len].to_vec());
    }
    Ok(Drawn {
        ids,
        distinct: long.len(),
        tokens,
    })
}

/// Cuts a text into consecutive windows of `seq_len` tokens, at most `max_windows` of them: the text is tokenised
/// once with the tokenizer's special tokens, as far as the windows reach, and what is left after the last whole window is dropped.
///
/// This is the protocol of all published perplexities on WikiText-2 (there the rows of the test split, joined by blank
/// lines, are the text).
///
/// # Errors
/// When the text does not fill one window, or `seq_len` or `max_windows` is zero.
pub fn evaluation_windows(
    tokenizer: &Tokenizer,
    text: &EvaluationText,
    seq_len: usize,
    max_windows: Option<usize>,
) -> Result<TokenWindows> {
    not_zero("‹seq-len›", seq_len)?;
    not_zero("‹eval-samples›", max_windows.unwrap_or(1))?;
    let max_windows = match (max_windows, text.most_windows) {
        (Some(asked), Some(most)) => Some(asked.min(most)),
        (asked, most) => asked.or(most),
    };
    let enough = max_windows.map_or(usize::MAX, |windows| windows.saturating_mul(seq_len));
    let (stream, all) = encode_joined(tokenizer, &text.texts, text.separator, enough)?;
    let tokens = stream.len();
    if tokens < seq_len {
        let source_names = text.source.in_words();
        return Err(DataError::TooFewTokens {
            source_names,
            tokens,
            needed: seq_len,
            seq_len,
        }
        .into());
    }
    let windows = stream
        .chunks_exact(seq_len)
        .take(max_windows.unwrap_or(usize::MAX));
    let ids: Vec<Vec<u32>> = windows.map(<[u32]>::to_vec).collect();
    let taken = ids.len();
    let of = match all {
        true => format!(" of {}", tokens / seq_len),
        false => String::new(),
    };
    let protocol = described(
        &text.protocol,
        &text.texts,
        format!(
            "the first {taken}{of} consecutive windows of {seq_len} tokens, text tokenised once with special tokens"
        ),
    );
    Ok(TokenWindows {
        ids,
        seq_len,
        protocol,
        source: text.source.clone(),
        total_tokens: tokens,
        seed: 0,
        undrawn: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::TextLayout;
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn tokenizer() -> Tokenizer {
        Tokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/opt-mini")).unwrap()
    }

    fn lines(text: &str) -> Documents {
        Documents::from_text("t.txt", text, TextLayout::Lines).unwrap()
    }

    fn data_error(result: Result<TokenWindows>) -> DataError {
        match result {
            Err(Error::Data(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn windows_are_parts_of_long_documents_only() {
        let tokenizer = tokenizer();
        let text = "one two\nOnce upon a time there was a little dog who liked the sun\nthree\nA cat and a bird sat on the tree and sang\n";
        let drawn = draw_windows(&tokenizer, &lines(text), 9, 5, 0).unwrap();
        assert_eq!((drawn.ids.len(), drawn.seq_len), (9, 5));
        let long: Vec<Vec<u32>> = text
            .lines()
            .map(|l| tokenizer.encode(l).unwrap())
            .filter(|t| t.len() > 5)
            .collect();
        assert_eq!(long.len(), 2);
        for window in &drawn.ids {
            assert!(
                long.iter()
                    .any(|document| document.windows(5).any(|w| w == window))
            );
        }
        assert!(drawn.protocol.contains("2 of 4 documents"), "{}", drawn.protocol);
        assert_eq!(drawn, draw_windows(&tokenizer, &lines(text), 9, 5, 0).unwrap());
        assert_ne!(
            drawn.ids,
            draw_windows(&tokenizer, &lines(text), 9, 5, 1).unwrap().ids
        );
        // Pinned, so that a seed keeps its meaning between versions.
        let starts = |d: &TokenWindows| d.ids.iter().map(|w| w[0]).collect::<Vec<_>>();
        assert_eq!(starts(&drawn), PINNED_FIRST_IDS);
    }

    const PINNED_FIRST_IDS: [u32; 9] = [3295, 673, 262, 333, 329, 2943, 525, 2943, 1454];

    #[test]
    fn too_little_text_is_an_error_with_advice() {
        let tokenizer = tokenizer();
        let short = lines("a b\nc d e\nf\n");
        let error = data_error(draw_windows(&tokenizer, &short, 4, 6, 0));
        assert!(
            matches!(&error, DataError::NoLongDocument { documents: 3, seq_len: 6, tokens, longest, .. }
            if longest <= &6 && tokens > &6),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("‹draw› stream"));
        let joined = Documents::from_text("t", "a b\nc d e\nf\n", TextLayout::Joined).unwrap();
        let drawn = draw_windows(&tokenizer, &joined, 4, 6, 0).unwrap();
        assert_eq!(drawn.ids.len(), 4);
        let tokens = drawn.total_tokens;
        let error = data_error(draw_windows(&tokenizer, &joined, 4, tokens, 0));
        assert!(matches!(error, DataError::TooFewTokens { needed, .. } if needed == tokens + 1));
        let text = EvaluationText::from_text("t", "a b");
        assert!(matches!(
            data_error(evaluation_windows(&tokenizer, &text, 100, None)),
            DataError::TooFewTokens { .. }
        ));
        for (samples, seq_len) in [(0, 1), (1, 0)] {
            assert!(matches!(
                draw_windows(&tokenizer, &short, samples, seq_len, 0),
                Err(Error::Config(ConfigError::Setting { .. }))
            ));
        }
        assert!(matches!(
            evaluation_windows(&tokenizer, &text, 1, Some(0)),
            Err(Error::Config(ConfigError::Setting { .. }))
        ));
    }

    #[test]
    fn evaluation_windows_are_consecutive() {
        let tokenizer = tokenizer();
        let text =
            EvaluationText::from_text("t", "Once upon a time there was a little dog who liked the sun");
        let all = tokenizer
            .encode("Once upon a time there was a little dog who liked the sun")
            .unwrap();
        let windows = evaluation_windows(&tokenizer, &text, 4, None).unwrap();
        assert_eq!(windows.ids.concat(), all[..all.len() / 4 * 4]);
        assert_eq!(windows.total_tokens, all.len());
        let first = evaluation_windows(&tokenizer, &text, 4, Some(2)).unwrap();
        assert_eq!(first.ids, windows.ids[..2]);
        let limited = EvaluationText {
            most_windows: Some(1),
            protocol: "published".into(),
            ..text.clone()
        };
        for asked in [None, Some(2)] {
            let found = evaluation_windows(&tokenizer, &limited, 4, asked).unwrap();
            assert_eq!(found.ids, windows.ids[..1]);
            assert!(found.protocol.starts_with("published: the first 1 of "));
        }
        let summary = first.summary();
        assert_eq!(
            (summary.windows, summary.tokens, summary.total_tokens),
            (2, 8, all.len())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn drawing_always_ends(words in proptest::collection::vec(0usize..12, 1..8), seq_len in 1usize..10, seed: u64) {
            let text: Vec<String> = words.iter().map(|&n| format!("x{}", " dog".repeat(n))).collect();
            let documents = lines(&text.join("\n"));
            if let Ok(drawn) = draw_windows(&tokenizer(), &documents, 5, seq_len, seed) {
                prop_assert!(drawn.ids.len() == 5 && drawn.ids.iter().all(|w| w.len() == seq_len));
            }
        }
    }
}
