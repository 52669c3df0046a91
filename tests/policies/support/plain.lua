-- Forwards, and says at the end how it went.
return {
  close = function(conn, info) conn.log.info("closed: %s", info.reason) end,
}
