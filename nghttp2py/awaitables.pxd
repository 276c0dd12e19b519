"""What compiled awaitables need: steps without exceptions for their values.

A module that has such a class names it by ``NGP_SLOTS`` in C of its own, and calls the
function ``..._prepare`` that this makes.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef extern from *:
    """
    /* Advances a coroutine: 1 if it has yielded, 0 if it has returned. */
    static inline int ngp_step(PyObject *coroutine, PyObject *value,
                               PyObject **presult) {
      PySendResult status = PyIter_Send(coroutine, value, presult);

      return status == PYGEN_NEXT ? 1 : status == PYGEN_RETURN ? 0 : -1;
    }

    typedef int (*ngp_step_function)(PyObject *, PyObject *, PyObject **);

    /*
     * The slots by which CPython advances an awaitable, am_send or, since 3.12 where
     * it awaits, tp_iternext.  Cython's own raise StopIteration, with a traceback for
     * which they make a frame.
     */
    #define NGP_SLOTS(name)                                                        \
      static ngp_step_function name##_step;                                        \
      static PySendResult name##_send(PyObject *self, PyObject *value,             \
                                      PyObject **presult) {                        \
        int kind = name##_step(self, value, presult);                              \
                                                                                   \
        return kind < 0 ? PYGEN_ERROR : kind ? PYGEN_NEXT : PYGEN_RETURN;          \
      }                                                                            \
      static PyObject *name##_next(PyObject *self) {                               \
        PyObject *result = NULL;                                                   \
        int kind = name##_step(self, Py_None, &result);                            \
                                                                                   \
        if (kind == 0) {                                                           \
          if (result != Py_None) {                                                 \
            PyErr_SetObject(PyExc_StopIteration, result);                          \
          }                                                                        \
          Py_CLEAR(result);                                                        \
        }                                                                          \
        return kind < 0 ? NULL : result;                                           \
      }                                                                            \
      static void name##_prepare(PyObject *type, ngp_step_function step) {         \
        name##_step = step;                                                        \
        ((PyTypeObject *)type)->tp_as_async->am_send = name##_send;                \
        ((PyTypeObject *)type)->tp_iternext = name##_next;                         \
      }
    """
    ctypedef int (*ngp_step_function)(object, object, PyObject **) except -1
    int ngp_step(object, object, PyObject **) except -1
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1


cdef inline int give(object value, PyObject **presult) except -1:
    """Return from an awaitable with a value."""
    Py_INCREF(value)
    presult[0] = <PyObject *>value
    return 0


cdef inline object take_result(PyObject *result):
    """Turn a reference that is ours into an object."""
    value = <object>result
    Py_DECREF(value)
    return value
