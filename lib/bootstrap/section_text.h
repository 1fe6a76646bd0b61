// The part of a configuration file that the `dataplane:` section is in.
//
// A configuration of 100,000 routes has tens of megabytes in which the section is a few lines, and yaml-cpp takes seconds and
// gigabytes for the whole. So of a text of a megabyte and more all but the section is blanked out; lines and columns stay. What
// cannot be told apart surely is left whole: unusual forms, and aliases in the section, which may be of anchors outside.
#pragma once

#include <string>
#include <string_view>

namespace millrace::bootstrap {

std::string section_text(std::string_view text);

}  // namespace millrace::bootstrap
