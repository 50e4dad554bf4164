// tests/cpp/main.cpp: the test program of the C++ core; run it with --help for doctest's options.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
