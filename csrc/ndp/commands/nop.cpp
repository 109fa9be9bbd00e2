// NOP: an order point, with the fence flag.
#include "ndp/commands/command.h"

namespace trimoe::ndp {

Outcome plan_nop(const Call&) { return {}; }

}  // namespace trimoe::ndp
