/* Requests to callgrind, for ctypes. They do nothing where it does not run. */
#include <valgrind/callgrind.h>

int is_running(void) { return RUNNING_ON_VALGRIND; }

void start(void) { CALLGRIND_START_INSTRUMENTATION; }

void begin(void)
{
    CALLGRIND_ZERO_STATS;
    CALLGRIND_TOGGLE_COLLECT;
}

void end(const char *name)
{
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_DUMP_STATS_AT(name);
}
