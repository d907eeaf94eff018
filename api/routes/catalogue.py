"""`/variants` and `/models`: the names that a job can use."""

from dataclasses import asdict

from fastapi import APIRouter

from api.deps import DEFAULT_LIMIT, NEEDS_KEY, BackendDep, CallerDep, Cursor, Limit
from api.docs.openapi import problems
from api.http.strict_route import StrictRoute
from api.schemas.catalogue import Models, Variant, Variants
from core.domain.variants.catalogue import LEGEND, VARIANTS
from core.domain.variants.entry import VariantOption
from core.services.base_models import starting_points

router = APIRouter(tags=["catalogue"], route_class=StrictRoute, dependencies=NEEDS_KEY)


@router.get("/variants", responses=problems(422))
def list_variants() -> Variants:
    """List the preference losses, with their options, bounds and papers."""
    data = [
        Variant.model_validate(
            asdict(variant) | {"options": {name: _option(option) for name, option in variant.options.items()}}
        )
        for variant in VARIANTS.values()
    ]
    return Variants(data=data, legend=LEGEND)


@router.get("/models", responses=problems(422, 503))
def list_models(backend: BackendDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Models:
    """List base models pulled by the operator, and policies tuned here."""
    return Models.model_validate(starting_points.list_models(backend, caller.project_id, limit=limit, cursor=cursor))


def _option(option: VariantOption) -> dict[str, object]:
    only_with = dict([option.only_with]) if option.only_with else {}
    return asdict(option) | {"only_with": only_with}
