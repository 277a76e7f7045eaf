"""Everything that this package raises. Messages never hold a value from a table."""


class CohortError(Exception):
    """Base of all errors of this package."""


class NotInRunError(CohortError):
    """There is no run: the script was started by hand. Next step: ``cohort recipe rehearse``."""


class UnknownDatasetError(CohortError):
    """No owner of this run fits the path. Next step: name an owner of the recipe."""


class EmitError(CohortError):
    """The result cannot be emitted: a second one, another epsilon, or names that the recipe does not declare."""
