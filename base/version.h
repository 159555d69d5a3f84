// The program's version, said once, in CMake's project(): `backhaul --version`, the API's description and the hello
// message tell it. Only version.cpp is compiled with it, so a new version compiles one file.
#pragma once

namespace backhaul {

extern const char* const kVersion;  // MAJOR.MINOR.PATCH

}  // namespace backhaul
