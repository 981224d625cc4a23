/* The few declarations of CPython's stable ABI (PEP 384) that the module needs: the same for every release since 3.8,
 * so one object serves all of them, and building it needs no Python headers. Not for free-threaded or debug builds,
 * whose objects look different: they do not load files named .abi3.so. */
#ifndef STOKER_ZYGOTE_PYTHON_ABI_H
#define STOKER_ZYGOTE_PYTHON_ABI_H

#include <stddef.h>
#include <sys/types.h>

#define PYTHON_ABI_VERSION 3
#define METH_O 0x0008

typedef struct python_object PyObject;

typedef struct {
    const char *name;
    PyObject *(*function)(PyObject *module, PyObject *argument);
    int flags;
    const char *documentation;
} PyMethodDef;

typedef struct {
    ssize_t references;
    void *type;
    PyObject *(*init)(void);
    ssize_t index;
    PyObject *copy;
    const char *name;
    const char *documentation;
    ssize_t size;
    PyMethodDef *methods;
    void *slots, *traverse, *clear, *free;
} PyModuleDef;

PyObject *PyModule_Create2(PyModuleDef *definition, int version);
PyObject *Py_BuildValue(const char *format, ...);
long PyLong_AsLong(PyObject *number);
void PyOS_BeforeFork(void);
void PyOS_AfterFork_Parent(void);
void PyOS_AfterFork_Child(void);

#endif
