-- xpcall that can be interrupted: LuaJIT calls the handler of an error before it leaves the hook that has raised it,
-- and no hook runs within a hook. So an error of the time budget does without the handler.

-- make(raw, is_over_budget) -> the function to put in its place.
return function(raw, is_over_budget)
  return function(f, handler, ...)
    return raw(f, function(err)
      if is_over_budget() then return err end
      return handler(err) -- a tail call: the handler's traceback begins where it always does
    end, ...)
  end
end
