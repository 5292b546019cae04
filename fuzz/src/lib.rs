//! The bodies of the fuzz targets: functions of bytes, which panic where a promise is broken.

pub mod codec;

pub mod session;
