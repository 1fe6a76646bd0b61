// A property that must hold for every input; a fuzz target that only calls the parser finds crashes, one that checks finds wrong
// answers.
#pragma once

#include "lib/base/assert.h"

#define FUZZ_REQUIRE(expr) MILLRACE_ASSERT(expr, "property of a fuzz target")
