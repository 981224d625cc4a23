/* Notes with descriptors between the jail and the children it makes. */
#ifndef STOKER_JAIL_PASSING_H
#define STOKER_JAIL_PASSING_H

struct passed_note {
    int error;     /* 0, or a negative errno */
    char step[60]; /* what failed */
};

int passing_send(int socket, const struct passed_note *note, const int *fds, unsigned count);

/* How many descriptors came (at most `room`), or -errno; -ECHILD when the other end is gone. */
int passing_receive(int socket, struct passed_note *note, int *fds, unsigned room);

#endif
