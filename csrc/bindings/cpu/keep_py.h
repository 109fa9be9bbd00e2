// Python objects that the core keeps for as long as it needs them.
#pragma once

#include <memory>
#include <utility>

#include <pybind11/pybind11.h>

namespace trimoe {

// Lets go of it with the GIL held, on whatever thread that is. After the interpreter has gone, when static
// tables are destroyed, there is nothing left to let go of.
template <typename T>
std::shared_ptr<void> keep(T object) {
  return {new T(std::move(object)), [](void* opaque) {
            if (!Py_IsInitialized()) return;
            const pybind11::gil_scoped_acquire locked;
            delete static_cast<T*>(opaque);
          }};
}

}  // namespace trimoe
