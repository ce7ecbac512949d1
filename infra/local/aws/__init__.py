"""The local AWS: ministack, with what it lacks and what tests need besides.

ministack 1.5.33 is a server of AWS's APIs in one process. Run as `python -m aws` it behaves as AWS
does where Coffer depends on it: `signatures` verifies every caller, `iam` adds condition keys,
`kms` integrity checks, `dynamodb` the order and reach of indexes and the segments of a scan, `api`
the routes, paths and limits of an HTTP API, `functions` changes that nobody else waits for, `pipes`
an event bus as a target, `scheduler` the attributes of a schedule's context, `cloudformation`
Fn::Join in conditions. `faults` makes it fail on demand and counts calls. All of them replace
private functions of ministack, so they hold for the pinned version only.
"""
