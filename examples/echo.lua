-- Answers every client with its own bytes; there is no server behind it.
--
--   penstock run examples/echo.lua
local ps = require "penstock"
ps.listen { name = "echo", bind = "127.0.0.1:7007", policy = {
  serve = function(_, client) client:pass(client) end,
} }
