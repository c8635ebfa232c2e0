#!/usr/bin/env bash
# Shows a report's page in a real browser: phone and desktop, light and dark, as pictures. Fails if the page is wider than
# its window, if text is cut off or a panel is empty, or if a request to the outside is not refused. Without Chromium it
# says so and does nothing.
#
#   tests/report/screenshots.sh REPORT.html OUTPUT_DIR
set -euo pipefail

page=$(realpath "${1:?usage: screenshots.sh REPORT.html OUTPUT_DIR}")
output=${2:?usage: screenshots.sh REPORT.html OUTPUT_DIR}
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "skipped: there is no chromium"
    exit 0
fi
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A window has a least width that is wider than a phone, so the page is shown in a frame. It measures itself, and makes a
# request that its policy must refuse.
{
    cat "$page"
    cat <<'SCRIPT'
<script>
let refused = 0;
document.addEventListener("securitypolicyviolation", () => { refused += 1; });
addEventListener("load", () => {
  new Image().src = "https://example.invalid/x.png";
  setTimeout(() => {
    const root = document.documentElement;
    const empty = [...document.querySelectorAll("section, figure, .split > div")]
      .filter(part => part.getBoundingClientRect().height < 60).length;
    // Tables scroll inside their own frames; nothing else may be wider than its place or end outside the window.
    const cut = [...document.querySelectorAll("body *:not(.sr):not(.sr *)")].filter(part => {
      if (part.closest("svg")) return false;
      const place = part.getBoundingClientRect();
      const scrolls = getComputedStyle(part).overflowX === "auto";
      const outside = !part.closest(".scroll") && place.width > 0 && place.right > root.clientWidth + 1;
      return outside || (!scrolls && part.clientWidth > 0 && part.scrollWidth > part.clientWidth + 1);
    });
    const first = cut.length === 0 ? "-" : cut[0].tagName + ":" + cut[0].textContent.trim().slice(0, 24).replace(/\s+/g, "_");
    const measured = [root.scrollWidth, root.clientWidth, root.scrollHeight, empty, refused, cut.length, first];
    parent.postMessage(measured.join(" "), "*");
  }, 100);
});
</script>
SCRIPT
} >"$work/page.html"

chrome() {
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
        --user-data-dir="$work/profile" "$@" 2>/dev/null
}

frame() {
    cat >"$work/frame.html" <<HTML
<!DOCTYPE html><html><head><meta name="color-scheme" content="light dark"><style>body{margin:0}iframe{border:0;display:block}</style></head>
<body><iframe width="$1" height="$2" src="page.html"></iframe>
<script>onmessage = event => { document.documentElement.dataset.measured = event.data; };</script></body></html>
HTML
}

failed=0

# shot NAME WIDTH SCHEME, where 0 is dark and 1 is light
shot() {
    local name=$1 width=$2 scheme=$3 measured content inner height empty refused cut first
    frame "$width" 800
    measured=$(chrome --blink-settings=preferredColorScheme="$scheme" --virtual-time-budget=3000 \
        --window-size=1400,900 --dump-dom "file://$work/frame.html" | sed -n 's/.*data-measured="\([^"]*\)".*/\1/p')
    if [ -z "$measured" ]; then
        echo "$name: the page did not load" >&2
        failed=1
        return
    fi
    read -r content inner height empty refused cut first <<<"$measured"
    frame "$width" "$height"
    chrome --blink-settings=preferredColorScheme="$scheme" --virtual-time-budget=3000 \
        --window-size="$((width < 500 ? 500 : width)),$height" --screenshot="$output/$name.png" "file://$work/frame.html"
    echo "$name: $content of $inner px wide, $height px high"
    wrong() {
        echo "$name: $1" >&2
        failed=1
    }
    [ "$inner" -eq "$width" ] || wrong "shown $inner px wide"
    [ "$content" -le "$inner" ] || wrong "wider than its window"
    [ "$empty" -eq 0 ] || wrong "$empty parts are empty"
    [ "$refused" -eq 1 ] || wrong "$refused requests were refused instead of one"
    [ "$cut" -eq 0 ] || wrong "$cut parts are cut off, first $first"
}

shot phone-light 390 1
shot phone-dark 390 0
shot wide-light 1280 1
shot wide-dark 1280 0
exit "$failed"
