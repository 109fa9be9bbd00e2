# Fails when an object file defines a weak symbol (see CMakeLists.txt for why that matters).
string(REPLACE "|" ";" OBJECTS "${OBJECTS}")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
  list(FILTER weak EXCLUDE REGEX " V DW\\.ref\\.")  # sanitizers: the address of the exception handler, no code
  if(weak)
    message(FATAL_ERROR "expected no weak symbols in ${object}; got ${weak}; try an unnamed namespace")
  endif()
endforeach()
