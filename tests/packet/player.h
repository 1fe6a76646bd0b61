// Plays a script against a subject, in virtual time, and says where the two part.
#pragma once

#include <string>

#include "tests/packet/script.h"
#include "tests/packet/subject.h"

namespace millrace::packet {

// Empty: all went as the script says. Else "NAME:LINE: what was expected, what came", in the script's notation.
std::string play(const Script&, const std::string& name, Subject&);

}  // namespace millrace::packet
