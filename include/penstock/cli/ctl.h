/* `penstock ctl`: an operator's questions and orders to a penstock that runs, over its admin. */
#ifndef PENSTOCK_CLI_CTL_H
#define PENSTOCK_CLI_CTL_H

/* argv[0] is "ctl". Returns the exit status: 0 when it was done, 1 when penstock cannot be reached,
 * refuses or says no, 2 when the command line is wrong. */
int ctl_command(int argc, char *argv[]);

#endif
