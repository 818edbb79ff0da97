package adb

// ReadShell reads the packets of a shell command.
var ReadShell = readShell
