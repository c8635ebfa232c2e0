#!/usr/bin/env python3
"""Words per sentence of README.md and the pages for users: one line per page, then the mean over all sentences.

usage: scripts/sentences.py [PAGE...]

Prose only: code, tables, headings and pictures do not count. A list item, a paragraph and a line of a quotation end a sentence.
`code` is one word, and of a link its text counts. A mean above 18 words, and with pages given every sentence above 30, is a
warning; the exit code is 0 in any case.
"""
import pathlib
import re
import sys

LIMIT = 18
LONG = 30
# Not for users: specifications and notes for developers.
OTHERS = {"internals.md", "packed-format.md"}


def paragraphs(text):
    """The prose, one string per paragraph or list item."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    item = []
    for line in text.splitlines() + [""]:
        begins = re.match(r"\s*([-*]|\d+\.|>)\s+", line)
        code = line.startswith("    ") and not item and not begins
        prose = line.strip() and not line.lstrip().startswith(("#", "|", "![", "<")) and not code
        if begins or not prose:
            if item:
                yield " ".join(item)
            item = []
        if prose:
            item.append(line[begins.end():] if begins else line.strip())


def sentences(text):
    """The sentences of a page as lists of words."""
    for paragraph in paragraphs(text):
        paragraph = re.sub(r"`[^`]*`", "code", paragraph)
        paragraph = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
        for sentence in re.split(r"(?<=[.!?])[)*\"]*\s+", paragraph):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                yield words


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    users = [page for page in sorted((root / "docs").glob("*.md")) if page.name not in OTHERS]
    given = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    total = count = 0
    for page in given or [root / "README.md", *users]:
        found = list(sentences(page.read_text(encoding="utf-8")))
        words = sum(map(len, found))
        total, count = total + words, count + len(found)
        name = page.relative_to(root) if page.is_relative_to(root) else page
        print(f"{words / max(len(found), 1):5.1f} words in a sentence, {len(found):4} sentences  {name}")
        for sentence in found if given else []:
            if len(sentence) > LONG:
                print(f"      {len(sentence)} words: {' '.join(sentence)}")
    mean = total / max(count, 1)
    print(f"{mean:5.1f} words in a sentence, {count:4} sentences  all pages")
    if mean > LIMIT:
        print(f"warning: sentences have {mean:.1f} words on average; aim at {LIMIT} or fewer", file=sys.stderr)


if __name__ == "__main__":
    main()
