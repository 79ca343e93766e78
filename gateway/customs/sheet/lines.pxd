# The types of lines.py, for Cython. Every index is checked when it is used, but where lines.py says otherwise.
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef int TEXT, ESCAPED, PLAIN, NUMBER, WORD, STRING, INTEGER, FLOAT, BOOLEAN, NULL
cdef uint64_t MAX_INT, _PRIME, _OTHER, _MASK

@cython.locals(
    count=Py_ssize_t, at=Py_ssize_t, cell=Py_ssize_t, field=Py_ssize_t, seen=uint64_t, one=uint64_t, mark=int,
)
cpdef Py_ssize_t cells(
    const unsigned char[::1] data, const unsigned char[::1] names, const int32_t[::1] ends, const int32_t[::1] kinds,
    const double[::1] low, const double[::1] high, uint64_t required, int32_t[:, ::1] found, double[::1] numbers,
) except -2

cdef Py_ssize_t _blank(const unsigned char[::1] data, Py_ssize_t at) except -2

@cython.locals(fields=Py_ssize_t, size=Py_ssize_t, here=Py_ssize_t)
cdef Py_ssize_t _name(
    const unsigned char[::1] data, Py_ssize_t at, const unsigned char[::1] names, const int32_t[::1] ends,
    Py_ssize_t last,
) except -2

@cython.locals(first=int)
cdef Py_ssize_t _value(
    const unsigned char[::1] data, Py_ssize_t at, int kinds, Py_ssize_t cell, int32_t[:, ::1] found,
    double[::1] numbers,
) except -2

@cython.locals(byte=int)
cdef Py_ssize_t _text(
    const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t cell, int32_t[:, ::1] found
) except -2

@cython.locals(place=Py_ssize_t, byte=cython.uchar, other=cython.uchar)
cdef Py_ssize_t _plain(const unsigned char[::1] data, Py_ssize_t at) except -2

@cython.locals(place=Py_ssize_t)
cdef Py_ssize_t _word(
    const unsigned char[::1] data, Py_ssize_t at, bytes word, Py_ssize_t cell, int32_t[:, ::1] found
) except -2

@cython.locals(at=Py_ssize_t, first=Py_ssize_t, whole=uint64_t, digits=Py_ssize_t)
cdef Py_ssize_t _number(
    const unsigned char[::1] data, Py_ssize_t start, int kinds, Py_ssize_t cell, int32_t[:, ::1] found,
    double[::1] numbers,
) except -2

@cython.locals(minus=bint, at=Py_ssize_t, digits=Py_ssize_t, scale=uint64_t, odd=bint)
cdef Py_ssize_t _float(
    const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t point, uint64_t whole, Py_ssize_t cell,
    int32_t[:, ::1] found, double[::1] numbers,
) except -2

@cython.locals(start=Py_ssize_t)
cdef Py_ssize_t _exponent(const unsigned char[::1] data, Py_ssize_t at) except -2

@cython.locals(
    size=Py_ssize_t, cell=Py_ssize_t, field=Py_ssize_t, mark=int, turn=Py_ssize_t, here=Py_ssize_t,
)
cpdef Py_ssize_t written(
    const unsigned char[::1] data, const int32_t[:, ::1] found, Py_ssize_t count, const double[::1] numbers,
    const unsigned char[::1] keys, const int32_t[::1] ends, const int32_t[::1] order, const unsigned char[::1] text,
    int32_t[::1] places, unsigned char[::1] out,
) except -2

@cython.locals(kind=int, form=bytes)
cdef Py_ssize_t value(
    const unsigned char[::1] data, const int32_t[:, ::1] found, Py_ssize_t cell, const double[::1] numbers,
    const unsigned char[::1] text, unsigned char[::1] out, Py_ssize_t size,
) except -2

@cython.locals(
    size=Py_ssize_t, row=Py_ssize_t, there=Py_ssize_t, cell=Py_ssize_t, start=Py_ssize_t, turn=Py_ssize_t,
    here=Py_ssize_t,
)
cpdef Py_ssize_t column(
    const unsigned char[::1] data, const int32_t[:, ::1] found, Py_ssize_t count, const double[::1] numbers,
    const unsigned char[::1] text, const int32_t[::1] wanted, unsigned char[::1] out,
) except -2

@cython.locals(cell=Py_ssize_t)
cpdef bint fits(
    const unsigned char[::1] text, const int32_t[:, ::1] found, Py_ssize_t count, int field,
    const unsigned char[::1] words, const int32_t[::1] ends,
) except? -2

@cython.locals(word=Py_ssize_t, first=Py_ssize_t, place=Py_ssize_t)
cdef bint _among(
    const unsigned char[::1] text, Py_ssize_t start, Py_ssize_t end, const unsigned char[::1] words,
    const int32_t[::1] ends,
) except? -2

@cython.locals(
    prime=uint64_t, other=uint64_t, mask=uint64_t, one=uint64_t, two=uint64_t, row=Py_ssize_t, at=Py_ssize_t,
    byte=uint64_t,
)
cpdef Py_ssize_t hashes(
    const unsigned char[::1] lines, Py_ssize_t size, const uint64_t[::1] seeds, uint64_t[:, ::1] out
) except -2

@cython.locals(place=Py_ssize_t)
cdef Py_ssize_t copied(
    unsigned char[::1] out, Py_ssize_t size, const unsigned char[::1] source, Py_ssize_t start, Py_ssize_t end
) except -2
