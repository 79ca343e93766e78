# The types of letters.py, for Cython. Every index is checked when it is used, but where letters.py says otherwise.
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef int ESCAPED, NUMBER, WORD, ROW, _KIND
cdef uint32_t _ODD, _DIFFERS, _ALONE, _MIXED
cdef size_t _CHARACTERS
cdef uint64_t _MASK

@cython.locals(
    at_text=size_t, at_folded=size_t, at_glued=size_t, at_tight=size_t, at_letters=size_t, first=bint, cell=size_t,
    field=Py_ssize_t, at=size_t, end=size_t, code=int, byte=cython.uint, shown=bytes, size=size_t, place=size_t,
    begin=size_t, begun_letters=size_t, start=size_t, again=size_t, copied_to=size_t, stop=size_t, seen=uint32_t,
    run=uint32_t, mark=uint32_t, deceives=uint32_t, odd=uint32_t,
)
cpdef int planes(
    const unsigned char[::1] data, const unsigned char[::1] source, int32_t[:, ::1] found, Py_ssize_t count,
    double[::1] numbers, const uint32_t[::1] marks, const unsigned char[::1] tights, const int32_t[:, ::1] lengths,
    unsigned char[::1] text, unsigned char[::1] folded, unsigned char[::1] glued, unsigned char[::1] tight,
    unsigned char[::1] letters, int64_t[::1] sizes,
) except -2

@cython.locals(found=Py_ssize_t, most=uint64_t, place=Py_ssize_t, one=uint64_t)
cpdef Py_ssize_t likely(
    const unsigned char[::1] letters, Py_ssize_t count, Py_ssize_t step, uint64_t mix, int shift,
    const unsigned char[::1] table, int by, int64_t[::1] out,
) except -2

@cython.locals(place=int, one=uint64_t, byte=uint64_t)
cdef uint64_t _eight(const unsigned char[::1] data, Py_ssize_t at) except? 0

@cython.locals(count=Py_ssize_t, place=Py_ssize_t, start=Py_ssize_t, code=Py_ssize_t)
cpdef Py_ssize_t begun(
    const unsigned char[::1] tight, const int32_t[:, :] places, Py_ssize_t least, const int32_t[::1] digits,
    const unsigned char[::1] begins, int32_t[::1] out,
) except -2

@cython.locals(start=size_t, place=size_t, byte=cython.uchar, other=cython.uchar)
cdef size_t _plain(const unsigned char[::1] data, size_t at, size_t end) except? 0

@cython.locals(code=int)
cdef int _decoded(const unsigned char[::1] data, Py_ssize_t at, int first) except -2

@cython.locals(byte=int, code=int, low=int)
cdef int _escaped(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) except -2

@cython.locals(code=int, byte=int, place=int)
cdef int _hex(const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) except -2

cdef Py_ssize_t _encoded(int code, unsigned char[::1] out, Py_ssize_t size) except -2
