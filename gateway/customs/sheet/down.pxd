# The types of down.py, for Cython. Every index is checked when it is used, but where down.py says otherwise.
cimport cython
from libc.stdint cimport int32_t, int64_t

@cython.locals(
    fields=Py_ssize_t, cell=Py_ssize_t, field=Py_ssize_t, start=Py_ssize_t, size=Py_ssize_t, at=Py_ssize_t,
    place=Py_ssize_t, whole=Py_ssize_t,
)
cpdef Py_ssize_t columns(
    const int32_t[:, ::1] found, Py_ssize_t count, const unsigned char[::1] tight, int64_t[::1] ends,
    unsigned char[::1] out,
) except -2

@cython.locals(cell=Py_ssize_t, row=Py_ssize_t, pieces=Py_ssize_t)
cpdef Py_ssize_t first(
    const int32_t[:, ::1] found, Py_ssize_t count, Py_ssize_t field, Py_ssize_t letters, int32_t[:, ::1] out
) except -2

@cython.locals(cell=Py_ssize_t, row=Py_ssize_t, pieces=Py_ssize_t)
cpdef Py_ssize_t last(
    const int32_t[:, ::1] found, Py_ssize_t count, Py_ssize_t field, Py_ssize_t letters, Py_ssize_t rows,
    int32_t[:, ::1] out,
) except -2
