// trimoe._assign.Clock; checks and names are Python's (trimoe/cost/clock.py).
#include <tuple>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/assign/assign_py.h"
#include "clock/clock.h"

namespace trimoe::clock {
namespace {

// (parts, after, priority) of each, as the fields of trimoe.cost.Task.
using Task = std::tuple<std::vector<std::pair<int, double>>, std::vector<int>, int>;

int extend(Clock& clock, std::vector<Task> tasks) {
  std::vector<TaskSpec> specs;
  specs.reserve(tasks.size());
  for (auto& [parts, after, priority] : tasks)
    specs.push_back({std::move(parts), std::move(after), priority});
  return clock.extend(specs);
}

std::vector<std::vector<std::tuple<double, double, int>>> intervals(const Clock& clock) {
  std::vector<std::vector<std::tuple<double, double, int>>> found;
  for (const auto& of_one : clock.intervals()) {
    auto& row = found.emplace_back();
    for (const Interval& one : of_one) row.emplace_back(one.start_ns, one.end_ns, one.task);
  }
  return found;
}

}  // namespace

void bind_clock(py::module_& m) {
  py::class_<Clock>(m, "Clock")
      .def(py::init<int, bool>(), py::arg("resources"), py::arg("keep"))
      .def("extend", &extend, py::arg("tasks"))
      .def("run", &Clock::run, py::arg("until"))
      .def("cancel", &Clock::cancel, py::arg("task"))
      .def("set_priority", &Clock::set_priority, py::arg("task"), py::arg("priority"))
      .def("ended", &Clock::ended, py::arg("task"))
      .def("busy_until_ns", &Clock::busy_until_ns, py::arg("now_ns"))
      .def_property_readonly("free_at_ns", &Clock::free_at_ns)
      .def_property_readonly("now_ns", &Clock::now_ns)
      .def_property_readonly("behind_ns", &Clock::behind_ns)
      .def_property_readonly("start_ns", [](const Clock& clock) { return clock.start_ns(); })
      .def_property_readonly("end_ns", [](const Clock& clock) { return clock.end_ns(); })
      .def_property_readonly("busy_ns", [](const Clock& clock) { return clock.busy_ns(); })
      .def_property_readonly("intervals", &intervals);
}

}  // namespace trimoe::clock
