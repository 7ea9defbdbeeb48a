-- include idempotency.lua

-- What the first submit with an idempotency key has come to (`Earlier`), as its kind and the answer as status, type and
-- body; or nothing.
return findEarlier(request) or {}
