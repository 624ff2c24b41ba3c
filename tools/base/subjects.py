"""What people ask a small picture model for: the subjects of the recognition measurement and of the contact sheet."""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


COMMON_SUBJECTS = _listed(
    """
    red apple, banana, strawberry, lemon, grapes, watermelon, pineapple, cherries, pear, peach, tomato, carrot,
    ear of corn, mushroom, bread, cheese wedge, hamburger, french fries, pizza, hot dog, cookie, doughnut,
    birthday cake, cupcake, lollipop, ice cream, hot beverage, beer mug, wine glass, cooking,
    cat face, dog face, mouse face, rabbit face, fox, panda, lion, tiger face, cow face, pig face, frog,
    monkey face, chicken, penguin, owl, fish, tropical fish, whale, octopus, crab, snail, butterfly, honeybee,
    lady beetle, turtle, elephant, horse,
    automobile, bus, fire engine, police car, delivery truck, tractor, bicycle, locomotive, airplane, helicopter,
    rocket, sailboat, anchor,
    house, castle, sunflower, tulip, rose, cactus, palm tree, evergreen tree, deciduous tree, four leaf clover,
    sun, full moon, crescent moon, star, cloud, rainbow, snowman, umbrella, fire, droplet,
    red heart, grinning face, ghost, robot, crown, key, hammer, guitar, balloon, wrapped gift
    """
)
"""One hundred subjects that at least three of the training sets draw."""

SHEET_PROMPTS = _listed(
    """
    grinning face, smiling face with sunglasses, red heart, blue heart, star, sun, crescent moon, rainbow,
    cat face, dog face, panda, fox, lion, pig face, frog, rabbit face,
    fish, whale, octopus, crab, turtle, penguin, owl, butterfly,
    elephant, snail, honeybee, unicorn, red apple, banana, strawberry, lemon,
    watermelon, cherries, carrot, mushroom, hamburger, pizza, doughnut, birthday cake,
    automobile, bus, fire engine, bicycle, rocket, airplane, sailboat, locomotive,
    house, castle, evergreen tree, palm tree, sunflower, tulip, cactus, four leaf clover,
    umbrella, balloon, wrapped gift, guitar, key, crown, ghost, robot
    """
)
"""Eight by eight pictures that show what the base can and cannot do."""
