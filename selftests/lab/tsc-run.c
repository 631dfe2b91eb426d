// SPDX-License-Identifier: GPL-2.0-only
/*
 * tsc-run NAME COMMAND...: run the command; print NAME with the CPU time it had and NAME-elapsed with how far the TSC went
 * on meanwhile, which counts what was idle too. Where an instruction takes a nanosecond both are instructions.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

int main(int argc, char **argv)
{
	unsigned long long start, elapsed;
	struct rusage ru;
	int status = -1;
	pid_t pid;

	if (argc < 3)
		return 2;
	start = __rdtsc();
	pid = fork();
	if (!pid) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		return 1;
	elapsed = __rdtsc() - start;
	getrusage(RUSAGE_CHILDREN, &ru);
	printf("%s %llu\n", argv[1], (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000ULL +
	       (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000ULL);
	printf("%s-elapsed %llu\n", argv[1], elapsed);
	return 0;
}
