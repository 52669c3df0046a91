/* `penstock test`: its own short command line. */
#ifndef PENSTOCK_CLI_TEST_COMMAND_H
#define PENSTOCK_CLI_TEST_COMMAND_H

/* argv[0] is "test". Returns the exit status: 0 when every test passed, 1 when one failed or none
 * could be run, 2 when the command line is wrong. */
int test_command(int argc, char *argv[]);

#endif
