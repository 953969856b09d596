#!/usr/bin/env bash
# -fvisibility=hidden and C++ variable templates; GCC 11.3.0 and 12.2.0 of Debian 12, 2026-11-28.
# Guess: with -fvisibility=hidden a shared library keeps its own copy of a variable template, as it
#        does of an inline variable.
# Seen:  GCC exports the variable template of a fundamental type, as a unique symbol, so that all
#        libraries of a process share the copy of the first one, also where dlopen() was told
#        RTLD_LOCAL: the second library computes with the first one's value. (clang 14 hides it.)
# Hence: give it __attribute__((visibility("hidden"))).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -o APT::Sandbox::User=root download -qq g++-11=11.3.0-12 g++-12=12.2.0-14+deb12u1
for package in *.deb; do dpkg -x "$package" .; done
seen=""
load() { # GCC's version, what is declared, how it is used
  for value in 1 2; do
    echo "$2 = $value; extern \"C\" __attribute__((visibility(\"default\"))) double get() { return $3; }" > bound.cpp
    usr/lib/gcc/x86_64-linux-gnu/$1/cc1plus -quiet -std=c++17 -O2 -fPIC -fvisibility=hidden bound.cpp -o bound.s
    as bound.s -o bound.o && ld -shared bound.o -o ./library$value.so
  done
  values=$(python3 -c "
import ctypes
for value in '12':
    library = ctypes.CDLL(f'./library{value}.so', mode=ctypes.DEFAULT_MODE)  # RTLD_LOCAL
    library.get.restype = ctypes.c_double
    print(int(library.get()), end='')")
  echo "$(grep -o 'GCC: .*[0-9]' bound.s): $2: libraries of 1 and 2 return ${values:0:1} and ${values:1:1}"
  seen+=" $values"
}
for version in 11 12; do
  load $version 'template <class T> T bound' 'bound<double>'
  load $version 'template <class T> __attribute__((visibility("hidden"))) T bound' 'bound<double>'
  load $version 'inline double bound' bound
done
test "$seen" = " 11 12 12 11 12 12"
