#!/usr/bin/env bash
# -ftree-vectorize and #pragma GCC optimize; GCC 11.3.0 and 12.2.0 of Debian 12, 2026-11-28.
# Guess: the pragma adds its options to those of the command line, so that a loop that
#        -O2 -ftree-vectorize vectorises still is with #pragma GCC optimize("no-trapping-math").
# Seen:  with GCC 11 any such pragma silently drops -ftree-vectorize, and the loop runs element by
#        element: an elementwise function took 5 times as long. With -O3 it is vectorised, and with
#        GCC 12, whose -O2 vectorises.
# Hence: name "tree-vectorize" in the pragma, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -o APT::Sandbox::User=root download -qq cpp-11=11.3.0-12 cpp-12=12.2.0-14+deb12u1
for package in *.deb; do dpkg -x "$package" .; done
seen=""
count() { # GCC's version, the level, the pragma's options: do vector registers of 32 bytes appear?
  cat > loop.c << C
${3:+#pragma GCC optimize($3)}
void scale(float *restrict to, const float *restrict from, float factor, int n) {
  for (int i = 0; i < n; i++) to[i] = factor * from[i];
}
C
  usr/lib/gcc/x86_64-linux-gnu/$1/cc1 -quiet -mavx2 $2 -ftree-vectorize loop.c -o loop.s
  vectors=$(grep -c ymm loop.s || true)
  echo "$(grep -o 'GCC: .*[0-9]' loop.s): $2 -ftree-vectorize, pragma ${3:-none}: $vectors vector instructions"
  seen+=" $((vectors > 0))"
}
for version in 11 12; do
  count $version -O2
  count $version -O2 '"no-trapping-math"'
  count $version -O2 '"no-trapping-math", "tree-vectorize"'
  count $version -O3 '"no-trapping-math"'
done
test "$seen" = " 1 0 1 1 1 1 1 1"
