// What a call of the op threw, for whoever can tell the caller more than the op's error has room for.
#pragma once

#include <exception>

namespace trimoe::runtime {

using Listener = void (*)(const std::exception_ptr& failure) noexcept;

// One for the process, for good. It is told on the thread of the call, before the op's error goes on.
void listen_to_failures(Listener listener);
void tell_failure(const std::exception_ptr& failure) noexcept;

}  // namespace trimoe::runtime
