#!/usr/bin/env bash
# Shows a report's page in a real browser: phone and desktop, light and dark, as pictures; fails if the page is wider than
# the window or asks for anything from outside. Skips where there is no Chromium.
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

# A window has a least width that is wider than a phone, so the page is shown in a frame. It measures itself, with a
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
    const empty = [...document.querySelectorAll("section")].filter(s => s.getBoundingClientRect().height < 60).length;
    parent.postMessage([root.scrollWidth, innerWidth, root.scrollHeight, empty, refused].join(" "), "*");
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

# shot NAME WIDTH SCHEME, where 0 is dark and 1 is light
shot() {
    local name=$1 width=$2 scheme=$3 measured
    frame "$width" 800
    measured=$(chrome --blink-settings=preferredColorScheme="$scheme" --virtual-time-budget=3000 \
        --window-size=1400,900 --dump-dom "file://$work/frame.html" | sed -n 's/.*data-measured="\([^"]*\)".*/\1/p')
    read -r content inner height empty refused <<<"$measured"
    frame "$width" "$height"
    chrome --blink-settings=preferredColorScheme="$scheme" --virtual-time-budget=3000 \
        --window-size="$((width < 500 ? 500 : width)),$height" --screenshot="$output/$name.png" "file://$work/frame.html"
    echo "$name: $content of $inner px wide, $height px high"
    if [ "$inner" -ne "$width" ] || [ "$content" -gt "$inner" ] || [ "$empty" -ne 0 ] || [ "$refused" -ne 1 ]; then
        echo "$name: too wide, an empty panel ($empty), or a request that was not refused ($refused)" >&2
        return 1
    fi
}

frame() {
    cat >"$work/frame.html" <<HTML
<!DOCTYPE html><html><head><meta name="color-scheme" content="light dark"><style>body{margin:0}iframe{border:0;display:block}</style></head>
<body><iframe width="$1" height="$2" src="page.html"></iframe>
<script>onmessage = event => { document.documentElement.dataset.measured = event.data; };</script></body></html>
HTML
}

shot phone-light 360 1
shot phone-dark 360 0
shot wide-light 1200 1
shot wide-dark 1200 0
